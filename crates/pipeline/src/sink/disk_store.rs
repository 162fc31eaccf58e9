//! An object store on a `Disk` that really syncs.

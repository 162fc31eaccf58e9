//! The data path over the simulated disk: power cuts by seed, and a disk that fills up.

mod full_disk;
mod power_cuts;

//! A seeded simulation of the whole data path over a simulated disk. Test only.
//!
//! Clients send numbered rows; the disk loses power after a number of operations drawn from the seed;
//! the engine is opened again on what the disk kept; in the end every row that was acknowledged must be
//! in the table exactly once (F1, F2), and the ledger must balance (F6).
//!
//! What comes from the seed: the clients' bodies and keys, the operation at which the power fails, and
//! which unsynced sectors and directory entries survive it. What does not: how the threads of the
//! engine interleave. A failing seed therefore fails again often, not always; it prints how to run it.

mod oracle;
mod rig;
mod round;

pub use self::oracle::{Ledger, Obligations};
pub use self::rig::{Rig, STREAM, send};
pub use self::round::{Simulation, simulate};

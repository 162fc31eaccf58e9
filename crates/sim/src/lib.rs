//! A seeded simulation of the whole over fake clock, disk and sinks.

//! The data path, modules in flow order: intake, codec, schema, journal entry, transform, lane, sink.

//! A Delta table's schema and features, in and out of Arrow. Pure.

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow as _, TryIntoKernel as _};
use deltalake::kernel::{Metadata, Protocol, StructType};

use crate::sink::SinkError;

/// Writer features that do not change what an append must do.
const HARMLESS_FEATURES: [&str; 8] = [
    "appendOnly",
    "invariants",
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "domainMetadata",
    "clustering",
];

/// The schema as Delta writes it.
///
/// # Errors
/// [`SinkError::Schema`]: names that differ in case only, types Delta lacks.
pub(super) fn to_delta(schema: &Schema) -> Result<StructType, SinkError> {
    schema.try_into_kernel().map_err(|e: arrow::error::ArrowError| SinkError::Schema(e.to_string()))
}

/// The schema of a table's metadata, in Arrow.
pub(super) fn of_table(metadata: &Metadata) -> Result<SchemaRef, SinkError> {
    let schema = metadata.parse_schema().map_err(|e| SinkError::Schema(e.to_string()))?;
    let arrow: Schema = (&schema)
        .try_into_arrow()
        .map_err(|e: arrow::error::ArrowError| SinkError::Schema(e.to_string()))?;
    Ok(arrow.into())
}

/// Whether rows may be appended to a table that somebody else may have made.
///
/// # Errors
/// [`SinkError::Schema`] says which feature stands in the way.
pub(super) fn check_appendable(protocol: &Protocol, metadata: &Metadata) -> Result<(), SinkError> {
    let refuse =
        |why: String| Err(SinkError::Schema(format!("the table cannot be appended to: {why}")));
    match protocol.min_writer_version() {
        ..=2 => {}
        7 => {
            let features = protocol.writer_features().unwrap_or_default();
            let strange = features
                .iter()
                .map(ToString::to_string)
                .find(|f| !HARMLESS_FEATURES.contains(&f.as_str()));
            if let Some(feature) = strange {
                return refuse(format!("it needs the writer feature {feature}"));
            }
        }
        version => return refuse(format!("it needs writer version {version}")),
    }
    if !metadata.partition_columns().is_empty() {
        return refuse("it is partitioned".to_owned());
    }
    let schema = metadata.parse_schema().map_err(|e| SinkError::Schema(e.to_string()))?;
    match schema.fields().find(|field| field.metadata().contains_key("delta.invariants")) {
        Some(field) => refuse(format!("column \"{}\" has an invariant", field.name())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn names_that_differ_in_case_only_are_refused() {
        let fields = ["a", "A"].map(|name| Field::new(name, DataType::Int64, true));
        assert!(matches!(to_delta(&Schema::new(fields.to_vec())), Err(SinkError::Schema(_))));
    }
}

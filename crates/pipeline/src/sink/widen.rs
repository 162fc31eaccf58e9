//! A table's schema against a flush's: what fits, what is added, what is refused. Pure.

use arrow::datatypes::{DataType, Field, Schema};

use super::SinkError;

/// The table schema that holds both; `None` when the table's holds the flush as it is.
///
/// # Errors
/// [`SinkError::Schema`]: a column of another type, a NOT NULL column that the flush lacks.
pub(super) fn widen(table: &Schema, flush: &Schema) -> Result<Option<Schema>, SinkError> {
    let mut fields: Vec<Field> = Vec::with_capacity(flush.fields().len());
    let mut changed = false;
    for held in table.fields() {
        let name = held.name();
        let Ok(given) = flush.field_with_name(name) else {
            if !held.is_nullable() {
                return Err(SinkError::Schema(format!(
                    "column \"{name}\" is NOT NULL in the table and not given"
                )));
            }
            fields.push(held.as_ref().clone());
            continue;
        };
        if !same_type(held.data_type(), given.data_type()) {
            let (had, got) = (held.data_type(), given.data_type());
            let why = format!(
                "column \"{name}\" is {had} in the table and {got} in the rows; a type cannot change"
            );
            return Err(SinkError::Schema(why));
        }
        let relaxed = given.is_nullable() && !held.is_nullable();
        changed |= relaxed;
        fields.push(held.as_ref().clone().with_nullable(held.is_nullable() || relaxed));
    }
    for given in flush.fields() {
        if table.field_with_name(given.name()).is_err() {
            changed = true;
            // Rows already stored have no value for it.
            fields.push(given.as_ref().clone().with_nullable(true));
        }
    }
    Ok(changed.then(|| Schema::new(fields)))
}

fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::Timestamp(a, zone), DataType::Timestamp(b, other)) => {
            a == b && zone.is_some() == other.is_some()
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(
            fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn new_columns_are_added_as_nullable_after_the_old_ones() {
        let table = schema(&[("a", DataType::Int64, false)]);
        let flush = schema(&[("b", DataType::Utf8, false), ("a", DataType::Int64, false)]);
        let wide = widen(&table, &flush).unwrap().unwrap();
        assert_eq!(wide, schema(&[("a", DataType::Int64, false), ("b", DataType::Utf8, true)]));
        assert_eq!(widen(&table, &table).unwrap(), None);
    }

    #[test]
    fn a_column_may_lose_its_not_null_and_never_change_its_type() {
        let table = schema(&[("a", DataType::Int64, false)]);
        let loose = schema(&[("a", DataType::Int64, true)]);
        assert_eq!(widen(&table, &loose).unwrap(), Some(loose.clone()));
        assert_eq!(widen(&loose, &table).unwrap(), None);
        let text = schema(&[("a", DataType::Utf8, false)]);
        assert!(
            matches!(widen(&table, &text), Err(SinkError::Schema(why)) if why.contains("\"a\""))
        );
        assert!(matches!(widen(&table, &schema(&[])), Err(SinkError::Schema(_))));
    }
}

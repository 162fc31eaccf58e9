//! A schema's DDL, changed piece by piece, as a person asks for it. Pure.

use forebay_pipeline::schema::{Check, Schema};

/// What to change in a schema.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// Columns to add, each as DDL.
    pub add: Vec<String>,
    /// Columns that may be NULL from now on.
    pub nullable: Vec<String>,
    /// Conditions to add.
    pub add_checks: Vec<String>,
    /// Conditions to drop, as `show` prints them.
    pub drop_checks: Vec<String>,
}

impl Edits {
    /// True when there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty()
            && self.nullable.is_empty()
            && self.add_checks.is_empty()
            && self.drop_checks.is_empty()
    }
}

/// The DDL with the edits applied.
///
/// # Errors
/// A text for people: DDL at fault with its position, a column or a condition that is not there.
pub fn edit(ddl: &str, edits: &Edits) -> Result<String, String> {
    let mut schema = Schema::parse(ddl).map_err(|error| format!("the schema: {error}"))?;
    for added in &edits.add {
        let more = Schema::parse(added).map_err(|error| format!("`{added}`: {error}"))?;
        for column in more.columns {
            if schema.column(&column.name).is_some() {
                return Err(format!("there is a column `{}` already", column.name));
            }
            schema.columns.push(column);
        }
        schema.checks.extend(more.checks);
    }
    for name in &edits.nullable {
        let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        let known = names.join(", ");
        let column = schema.columns.iter_mut().find(|column| column.name == *name);
        let column =
            column.ok_or_else(|| format!("no column `{name}`; the columns are {known}"))?;
        column.nullable = true;
    }
    for dropped in &edits.drop_checks {
        let at = schema.checks.iter().position(|check| same(&check.sql, dropped));
        let Some(at) = at else {
            let known: Vec<String> =
                schema.checks.iter().map(|check| format!("CHECK ({})", check.sql)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("no CHECK ({dropped}); there are: {known}"));
        };
        schema.checks.remove(at);
    }
    for sql in &edits.add_checks {
        schema.checks.push(Check { column: None, sql: sql.clone() });
    }
    let ddl = schema.to_ddl();
    // What was added must read back as what it was: a condition is known to be one only then.
    let read = Schema::parse(&ddl).map_err(|error| format!("{ddl}: {error}"))?;
    if (read.columns.len(), read.checks.len()) != (schema.columns.len(), schema.checks.len()) {
        return Err(format!(
            "CHECK ({}) is more than one condition",
            edits.add_checks.join("), (")
        ));
    }
    Ok(ddl)
}

/// Equal but for white space.
fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// The DDL, a column or condition a line.
pub fn lines(ddl: &str) -> Vec<String> {
    let Ok(schema) = Schema::parse(ddl) else { return vec![ddl.to_owned()] };
    let own = |check: &&Check, name: &str| check.column.as_deref() == Some(name);
    let columns = schema.columns.iter().map(|column| {
        let checks = schema.checks.iter().filter(|check| own(check, &column.name)).cloned();
        Schema { columns: vec![column.clone()], checks: checks.collect() }.to_ddl()
    });
    let free = schema.checks.iter().filter(|check| check.column.is_none());
    columns.chain(free.map(|check| format!("CHECK ({})", check.sql))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DDL: &str = "a INT NOT NULL CHECK (a > 0), \"b c\" TEXT";

    fn one(change: impl FnOnce(&mut Edits, Vec<String>), text: &str) -> Result<String, String> {
        let mut edits = Edits::default();
        change(&mut edits, vec![text.to_owned()]);
        edit(DDL, &edits)
    }

    #[test]
    fn each_edit_changes_its_part_and_nothing_else() {
        assert_eq!(edit(DDL, &Edits::default()).unwrap(), DDL);
        let added = one(|edits, text| edits.add = text, "d DOUBLE CHECK (d < 1)").unwrap();
        assert_eq!(added, format!("{DDL}, d DOUBLE CHECK (d < 1)"));
        let loose = one(|edits, text| edits.nullable = text, "a").unwrap();
        assert_eq!(loose, "a INT CHECK (a > 0), \"b c\" TEXT");
        let free = one(|edits, text| edits.drop_checks = text, " a  > 0").unwrap();
        assert_eq!(free, "a INT NOT NULL, \"b c\" TEXT");
        let more = one(|edits, text| edits.add_checks = text, "a < 9").unwrap();
        assert_eq!(more, format!("{DDL}, CHECK (a < 9)"));
    }

    #[test]
    fn what_cannot_be_edited_is_named() {
        let wrong = |result: Result<String, String>, part: &str| {
            let message = result.unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        wrong(one(|edits, text| edits.add = text, "a TEXT"), "a column `a` already");
        wrong(one(|edits, text| edits.add = text, "d TEXTT"), "TEXTT");
        wrong(one(|edits, text| edits.nullable = text, "A"), "a, b c");
        wrong(one(|edits, text| edits.drop_checks = text, "a > 1"), "CHECK (a > 0)");
        wrong(one(|edits, text| edits.add_checks = text, "nosuch > 1"), "nosuch");
        wrong(one(|edits, text| edits.add_checks = text, "a > 1), z INT CHECK (true"), "z");
    }

    #[test]
    fn a_schema_is_shown_a_column_a_line() {
        let lines = lines("a INT NOT NULL CHECK (a > 0), \"b,c\" TEXT, CHECK (a < 9)");
        assert_eq!(lines, ["a INT NOT NULL CHECK (a > 0)", "\"b,c\" TEXT", "CHECK (a < 9)"]);
    }
}

//! DDL and CHECK.

#![expect(clippy::unwrap_used, reason = "tests")]

use forebay_pipeline::record::Code;
use forebay_pipeline::schema::check::Checks;
use forebay_pipeline::schema::{Constant, Schema, TYPE_KEY, Type};

use crate::rows::{DDL, batch, flights, good, schema};

fn error(ddl: &str) -> String {
    Schema::parse(ddl).unwrap_err().to_string()
}

#[track_caller]
fn refused(ddl: &str, at: &str, words: &str) {
    let error = error(ddl);
    assert!(error.starts_with(at), "{ddl}: {error}");
    assert!(error.contains(words), "{ddl}: {error}");
}

#[test]
fn a_schema_keeps_order_case_types_nulls_defaults_and_checks() {
    let schema = Schema::parse(
        "Id BIGINT NOT NULL, \"Dep Delay\" DOUBLE PRECISION DEFAULT -1.5, -- minutes
         n SMALLINT DEFAULT 7 NOT NULL CHECK (n > 0) CHECK (n < 100),
         price NUMERIC(10,2) DEFAULT 3.5, ok BOOL DEFAULT true, at TIMESTAMPTZ DEFAULT '2013-01-01T05:00:00+01:00',
         day DATE DEFAULT DATE '1970-01-02', note VARCHAR DEFAULT 'it''s', doc JSONB DEFAULT '{}', f FLOAT, r REAL,
         CHECK (n < Id), CONSTRAINT named CHECK (\"Dep Delay\" IS NULL OR n > 1)",
    )
    .unwrap();
    let types: Vec<_> = schema.columns.iter().map(|column| column.ty).collect();
    assert_eq!(
        types,
        [
            Type::BigInt,
            Type::Double,
            Type::SmallInt,
            Type::Decimal { precision: 10, scale: 2 },
            Type::Boolean,
            Type::Timestamp,
            Type::Date,
            Type::Text,
            Type::Json,
            Type::Double,
            Type::Real,
        ]
    );
    let (_, delay) = schema.column("Dep Delay").unwrap();
    assert_eq!((delay.nullable, delay.default.clone()), (true, Some(Constant::Double(-1.5))));
    assert!(!schema.column("n").unwrap().1.nullable);
    assert_eq!(schema.column("price").unwrap().1.default, Some(Constant::Decimal(350)));
    assert_eq!(
        schema.column("at").unwrap().1.default,
        Some(Constant::Timestamp(1_357_012_800_000_000))
    );
    assert_eq!(schema.column("day").unwrap().1.default, Some(Constant::Date(1)));
    assert_eq!(schema.column("note").unwrap().1.default, Some(Constant::Text("it's".into())));
    let checks: Vec<_> =
        schema.checks.iter().map(|check| (check.column.as_deref(), check.sql.as_str())).collect();
    assert_eq!(
        checks,
        [
            (Some("n"), "n > 0"),
            (Some("n"), "n < 100"),
            (None, "n < Id"),
            (None, "\"Dep Delay\" IS NULL OR n > 1"),
        ]
    );
}

#[test]
fn a_schema_written_as_ddl_reads_back_as_itself() {
    let odd = "\"check\" INT DEFAULT -3 CHECK (\"check\" <> 0 -- not zero
        ), \"a \"\"b\"\"\" DECIMAL(38,38) DEFAULT -0.5, t TIMESTAMP DEFAULT '1969-12-31 23:59:59.999999',
        d DATE NOT NULL DEFAULT '0001-01-01', r REAL DEFAULT 1e30, b BOOLEAN DEFAULT FALSE, year INT,
        é TEXT DEFAULT 'ü', CHECK (year > 0 OR d IS NULL)";
    for ddl in [DDL, odd] {
        let schema = Schema::parse(ddl).unwrap();
        let again = Schema::parse(&schema.to_ddl()).unwrap();
        assert_eq!(again.columns, schema.columns, "{}", schema.to_ddl());
        assert_eq!(again.to_ddl(), schema.to_ddl());
        assert_eq!(again.checks.len(), schema.checks.len());
    }
}

#[test]
fn a_fault_in_the_ddl_is_named_at_its_place() {
    refused("", "line 1, column 1:", "expected a column");
    refused("a INT,", "line 1, column 7:", "expected a column");
    refused("a INT,\n  b INTT", "line 2, column 5:", "did you mean `INT`?");
    refused("a INT,\n  a TEXT", "line 2, column 3:", "declared twice");
    refused("_received_at TIMESTAMP", "line 1, column 1:", "Forebay fills itself");
    refused("a", "line 1, column 2:", "no type");
    refused("a INT b TEXT", "line 1, column 7:", "`b` is not supported");
    refused("id INT PRIMARY KEY", "line 1, column 8:", "NOT NULL, NULL, DEFAULT");
    refused("id INT REFERENCES t", "line 1, column 8:", "`REFERENCES` is not supported");
    refused("id INT UNIQUE", "line 1, column 8:", "`UNIQUE` is not supported");
    refused("id INT, PRIMARY KEY (id)", "line 1, column 9:", "`PRIMARY` is not supported");
    refused("id INT, UNIQUE (id)", "line 1, column 9:", "`UNIQUE` is not supported");
    refused("id INT NOT NULL NULL", "line 1, column 17:", "both");
    refused("id INT DEFAULT 1 DEFAULT 2", "line 1, column 18:", "two DEFAULTs");
    refused("id INT NOT NULL DEFAULT NULL", "line 1, column 25:", "NOT NULL");
    refused("id INT DEFAULT 1.5", "line 1, column 16:", "does not fit INT");
    refused("id SMALLINT DEFAULT 40000", "line 1, column 21:", "does not fit SMALLINT");
    refused("id INT DEFAULT 'x'", "line 1, column 16:", "does not fit INT");
    refused("t TIMESTAMP DEFAULT now()", "line 1, column 21:", "constant");
    refused("p DECIMAL(4,2) DEFAULT 100", "line 1, column 24:", "does not fit");
    refused("p DECIMAL(4,2) DEFAULT 1.234", "line 1, column 24:", "does not fit");
    refused("p DECIMAL(40,2)", "line 1, column 3:", "1 to 38");
    refused("p DECIMAL(4,5)", "line 1, column 3:", "scale");
    refused("p DECIMAL", "line 1, column 3:", "DECIMAL(18,2)");
    refused("p VARCHAR(9)", "line 1, column 3:", "CHECK (length(p) <= 9)");
    refused("j JSON DEFAULT '{'", "line 1, column 16:", "JSON");
    refused("a INT CHECK a > 0", "line 1, column 13:", "expected (");
    refused("a INT CHECK (a >)", "line 1, column 17:", "expected");
    refused("a TEXT DEFAULT 'x", "line 1, column 16:", "");
}

#[test]
fn a_check_that_is_no_condition_on_one_row_is_refused_at_its_place() {
    refused("a INT CHECK (aa > 0)", "line 1, column 14:", "did you mean `a`?");
    refused("a INT,\n CHECK (a > 0 AND b < 1)", "line 2, column 19:", "unknown column `b`");
    refused("a INT CHECK (A > 0)", "line 1, column 14:", "did you mean `a`?");
    refused("a INT CHECK (a > sum(a))", "line 1, column 18:", "aggregate");
    refused("a INT CHECK (a > (SELECT 1))", "line 1, column 19:", "subquery");
    refused("a INT CHECK (a > row_number() OVER ())", "line 1, column 18:", "window");
    refused("a INT CHECK (a + 1)", "line 1, column 14:", "true or false");
    refused("a TIMESTAMP CHECK (a < now())", "line 1, column 24:", "another result");
    refused("a INT CHECK (lenght(a) > 0)", "line 1, column 14:", "did you mean `length`?");
    refused("a TEXT CHECK (a = \"x\")", "line 1, column 19:", "'x'");
    refused("a INT CHECK (a = $1)", "line 1, column 18:", "placeholder");
    refused("a INT CHECK (t.a = 1)", "line 1, column 14:", "unknown table `t`");
}

#[test]
fn rows_that_fail_a_check_are_refused_with_constraint_value_and_bytes_and_the_rest_stays_in_order()
{
    let checks = Checks::plan(&schema()).unwrap();
    let (before, chunk) = batch(flights(
        [1, 13, 3, 0, 5],
        ["UA", "AAA", "B6", "DL", "UA"],
        [Some(1400), Some(-1), None, Some(762), Some(0)],
    ));
    let after = checks.apply(before, &chunk);
    assert_eq!(after.numbers, [1, 3], "a NULL distance passes");
    assert_eq!(after.spans, [(0, 5), (12, 5)]);
    assert_eq!(after.rows.num_rows() + after.rejected.len(), 5, "F6");
    let told: Vec<_> = after
        .rejected
        .iter()
        .map(|row| {
            (row.row, row.column.as_deref().unwrap(), row.code, row.message.as_str(), &row.raw[..])
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                2,
                "month",
                Code::Check,
                "CHECK (month BETWEEN 1 AND 12) is false: month = 13",
                &b"row 2"[..]
            ),
            (
                4,
                "month",
                Code::Check,
                "CHECK (month BETWEEN 1 AND 12) is false: month = 0",
                b"row 4"
            ),
            (5, "distance", Code::Check, "CHECK (distance > 0) is false: distance = 0", b"row 5"),
        ]
    );
}

#[test]
fn a_batch_whose_rows_all_pass_is_not_copied() {
    let checks = Checks::plan(&schema()).unwrap();
    let (before, chunk) = batch(good());
    let pointers: Vec<_> = before.rows.columns().iter().map(std::sync::Arc::as_ptr).collect();
    let after = checks.apply(before, &chunk);
    assert!(after.rejected.is_empty());
    assert!(
        std::iter::zip(after.rows.columns(), pointers)
            .all(|(a, b)| std::ptr::addr_eq(a.as_ref(), b))
    );
}

#[test]
fn a_check_that_cannot_be_evaluated_refuses_only_the_rows_at_fault() {
    let ddl = DDL.replace(
        "CHECK (distance > 0)",
        "CHECK (1000 / distance > 0 AND distance + 2147483000 > 0)",
    );
    let schema = Schema::parse(&ddl).unwrap();
    let checks = Checks::plan(&schema).unwrap();
    let (before, chunk) = batch(flights(
        [1, 2, 3, 4, 5],
        ["UA", "AA", "B6", "DL", "UA"],
        [Some(10), Some(0), None, Some(900), Some(0)],
    ));
    let after = checks.apply(before, &chunk);
    assert_eq!(after.numbers, [1, 3, 4]);
    let rows: Vec<_> = after.rejected.iter().map(|row| row.row).collect();
    assert_eq!(rows, [2, 5]);
    assert!(after.rejected[0].message.contains("ivide by zero"), "{}", after.rejected[0].message);
}

#[test]
fn json_functions_mark_their_columns_with_the_same_key_as_the_schema() {
    assert_eq!(TYPE_KEY, "forebay.type");
}

//! Bad values: numbers, dates and JSON at the edges of their types.

use crate::inputs::{CSV, Case, NDJSON, rows, select};
use crate::server::Server;

pub(crate) const CASES: &[Case] = &[
    Case {
        input: "numbers beyond their type: 2^63 in a BIGINT, 40000 in a SMALLINT, 1e400 in a DOUBLE, seven digits before the point in a DECIMAL(8,2)",
        answer: "a dead letter `out_of_range`",
        run: |server| {
            for value in [
                "\"id\":9223372036854775808",
                "\"id\":-9223372036854775809",
                "\"small\":40000",
                "\"amount\":1e400",
                "\"price\":1234567.5",
            ] {
                one(server, value, "out_of_range");
            }
        },
    },
    Case {
        input: "the last numbers that fit: 2^63-1, -2^63, -0",
        answer: "stored exactly",
        run: |server| {
            let body = b"{\"name\":\"edge\",\"id\":9223372036854775807}\n{\"name\":\"edge\",\"id\":-9223372036854775808}\n{\"name\":\"edge\",\"id\":-0}\n";
            rows(server, "typed", NDJSON, body, 3, &[]);
            let ids =
                select(server, "SELECT DISTINCT id FROM typed WHERE name = 'edge' ORDER BY id");
            let ids: Vec<String> = ids.iter().map(|row| row["id"].to_string()).collect();
            assert_eq!(ids, ["-9223372036854775808", "0", "9223372036854775807"]);
        },
    },
    Case {
        input: "a fraction in a BIGINT, a text in a number",
        answer: "a dead letter `type_mismatch`: nothing is rounded or guessed",
        run: |server| {
            for value in
                ["\"id\":1.9", "\"id\":\"x\"", "\"amount\":\"x\"", "\"id\":true", "\"id\":[1]"]
            {
                one(server, value, "type_mismatch");
            }
        },
    },
    Case {
        input: "`NaN` and `Infinity` in JSON",
        answer: "a dead letter `syntax`: JSON has no such numbers",
        run: |server| {
            for value in ["\"amount\":NaN", "\"amount\":Infinity", "\"amount\":-Infinity"] {
                one(server, value, "syntax");
            }
        },
    },
    Case {
        input: "`007`",
        answer: "in JSON a dead letter `syntax`; in CSV the number 7 in a BIGINT and the text `007` in TEXT; a stream that appears by itself makes the column TEXT",
        run: |server| {
            one(server, "\"id\":007", "syntax");
            rows(server, "typed", CSV, b"id,name\n007,007\n", 1, &[]);
            assert_eq!(
                select(server, "SELECT DISTINCT id FROM typed WHERE name = '007'")[0]["id"],
                7
            );
            rows(server, "agents", CSV, b"agent\n007\n", 1, &[]);
            assert_eq!(select(server, "SELECT DISTINCT agent FROM agents")[0]["agent"], "007");
        },
    },
    Case {
        input: "a day that does not exist, a time that is none",
        answer: "a dead letter `invalid_date`",
        run: |server| {
            for value in [
                "\"day\":\"2013-02-30\"",
                "\"day\":\"2013-13-01\"",
                "\"day\":\"yesterday\"",
                "\"at\":\"2013-01-01T25:00:00Z\"",
                "\"at\":\"2013-01-01T00:00:00+99:00\"",
            ] {
                one(server, value, "invalid_date");
            }
        },
    },
    Case {
        input: "a leap second: `23:59:60`",
        answer: "a dead letter `invalid_date` that says to send `:59`",
        run: |server| {
            let body = b"{\"at\":\"2016-12-31T23:59:60Z\"}\n{\"id\":1}\n";
            let messages = rows(server, "typed", NDJSON, body, 1, &[(1, "invalid_date")]);
            assert!(messages[0].contains(":59"), "{messages:?}");
        },
    },
    Case {
        input: "a timestamp of another offset, or of none",
        answer: "stored in UTC; no offset means UTC",
        run: |server| {
            let body = b"{\"name\":\"offset\",\"at\":\"2013-01-01T05:00:00+02:00\"}\n{\"name\":\"offset\",\"at\":\"2013-01-01 03:00:00\"}\n";
            rows(server, "typed", NDJSON, body, 2, &[]);
            let hours = select(
                server,
                "SELECT DISTINCT date_part('hour', at) AS h FROM typed WHERE name = 'offset'",
            );
            assert_eq!(hours.len(), 1, "{hours:?}");
            assert_eq!(hours[0]["h"].as_f64(), Some(3.0), "{hours:?}");
        },
    },
    Case {
        input: "100,000 levels of nesting",
        answer: "a dead letter `too_deep`",
        run: |server| {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let deep = format!("\"nested\":{}1{}", open.repeat(100_000), close.repeat(100_000));
                one(server, &deep, "too_deep");
            }
        },
    },
    Case {
        input: "a key twice in a JSON object",
        answer: "a dead letter `duplicate_key`",
        run: |server| one(server, "\"id\":1,\"id\":1", "duplicate_key"),
    },
    Case {
        input: "a lone surrogate: `\\ud800`",
        answer: "a dead letter `syntax`",
        run: |server| {
            for value in
                ["\"name\":\"\\ud800\"", "\"name\":\"\\udc00x\"", "\"nested\":{\"a\":\"\\ud800\"}"]
            {
                one(server, value, "syntax");
            }
        },
    },
    Case {
        input: "a comma after the last value",
        answer: "a dead letter `syntax`",
        run: |server| {
            one(server, "\"id\":1,", "syntax");
            one(server, "\"nested\":[1,]", "syntax");
        },
    },
    Case {
        input: "two objects on a line",
        answer: "the line is a dead letter `syntax`",
        run: |server| {
            let body = b"{\"id\":1}{\"id\":2}\n{\"id\":3}\n";
            rows(server, "typed", NDJSON, body, 1, &[(1, "syntax")]);
        },
    },
    Case {
        input: "an object over several lines, sent as NDJSON",
        answer: "each line is a dead letter `syntax` that says to send it as `application/json`",
        run: |server| {
            let body = b"{\n  \"id\": 1\n}\n{\"id\":2}\n";
            let dead = [(1, "syntax"), (2, "syntax"), (3, "syntax")];
            let messages = rows(server, "typed", NDJSON, body, 1, &dead);
            assert!(messages[0].contains("application/json"), "{messages:?}");
        },
    },
];

/// A row with this member between two good ones: it alone is refused, with this code.
fn one(server: &Server, member: &str, code: &str) {
    let body = format!("{{\"id\":1}}\n{{{member}}}\n{{\"id\":3}}\n");
    rows(server, "typed", NDJSON, body.as_bytes(), 2, &[(2, code)]);
}

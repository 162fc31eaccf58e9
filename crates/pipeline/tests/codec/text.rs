//! Lines of text: as they are, by a pattern, by a built-in one; and the real logs of four systems.

use forebay_pipeline::codec::{Dialect, Format, Limits, Pattern, infer};
use forebay_pipeline::record::Batch;
use forebay_pipeline::schema::{Schema, Type, Unknown};

use crate::{cut, decode, refusals, rows, schema, shared};

fn pattern(text: &str) -> Format {
    match Pattern::parse(text) {
        Ok(pattern) => Format::Text(pattern),
        Err(why) => panic!("{why}"),
    }
}

fn read(format: &Format, schema: &Schema, body: &str) -> Vec<Batch> {
    let unknown = Unknown::DeadLetter;
    decode(format.clone(), Limits::default(), schema, unknown, body.as_bytes()).unwrap_or_default()
}

/// The rows of a body under the schema that is inferred from it, below its columns.
fn inferred(format: &Format, body: &str) -> Vec<String> {
    let chunks = cut(format.clone(), Limits::default(), body.as_bytes()).unwrap_or_default();
    let schema = infer(format, &chunks[0], Limits::default());
    let schema = schema.unwrap_or_else(|why| panic!("{why}"));
    let names = schema.columns.iter().map(|column| format!("{} {}", column.name, column.ty.sql()));
    let mut texts = vec![names.collect::<Vec<_>>().join(", ")];
    let batches = read(format, &schema, body);
    texts.extend(rows(&batches));
    texts.extend(refusals(&batches));
    texts
}

#[test]
fn a_line_is_a_row_and_keeps_what_stands_around_it() {
    let body = "first\r\n  indented \n\n \t\n12\nlast, without a line end";
    let expected = ["line TEXT", "first", "  indented ", "12", "last, without a line end"];
    assert_eq!(inferred(&Format::Text(Pattern::default()), body), expected);
}

#[test]
fn named_groups_become_columns_of_the_schemas_types() {
    let format = pattern(r"(?<level>\w+) (?<took>[\d.]+|-)ms (?:user=(?<user>\S*) )?(?<at>\S+)");
    let schema = schema(&[
        ("level", Type::Text),
        ("took", Type::Double),
        ("user", Type::Text),
        ("at", Type::Timestamp),
    ]);
    let body = "INFO 1.5ms user=ada 2013-01-01T10:00:00Z\n\
                WARN -ms 01/Jan/2013:12:00:00+0200\n\
                WARN 2ms 01/Jan/2013:12:00:00\n\
                WARN 2ms user= yesterday\n\
                INFO fast\n";
    let batches = read(&format, &schema, body);
    assert_eq!(
        rows(&batches),
        ["INFO|1.5|ada|2013-01-01T10:00:00Z", "WARN|2.0|~|2013-01-01T12:00:00Z"]
    );
    let refused = refusals(&batches);
    assert!(refused[0].starts_with("2 invalid_date at:"), "{refused:?}");
    assert!(refused[1].starts_with("4 invalid_date at:"), "{refused:?}");
    assert!(refused[2].starts_with("5 no_match -: the line does not match"), "{refused:?}");
    assert!(refused[2].ends_with("\"INFO fast\""), "{refused:?}");
}

#[test]
fn a_pattern_describes_the_whole_line() {
    let schema = schema(&[("n", Type::Int)]);
    let batches = read(&pattern(r"n=(?<n>\d+)"), &schema, "n=1\nn=2 and more\nsome n=3\n");
    assert_eq!(rows(&batches), ["1"]);
    assert_eq!(refusals(&batches).len(), 2);
}

#[test]
fn a_group_without_a_column_follows_the_streams_rule_for_unknown_columns() {
    let schema = schema(&[("a", Type::Text), ("_extra", Type::Json)]);
    let format = pattern(r"(?<a>\w+) (?<b>\w+)");
    let with = |unknown| {
        decode(format.clone(), Limits::default(), &schema, unknown, b"x y\n").unwrap_or_default()
    };
    assert!(refusals(&with(Unknown::DeadLetter))[0].starts_with("1 unknown_column b:"));
    assert_eq!(rows(&with(Unknown::Drop)), ["x|~"]);
    assert_eq!(rows(&with(Unknown::Keep)), ["x|{\"b\":\"y\"}"]);
}

#[test]
fn common_and_combined_logs_are_read_with_their_types() {
    let columns = "host TEXT, ident TEXT, user TEXT, time TIMESTAMP, request TEXT, method TEXT, \
                   path TEXT, protocol TEXT, status INT, bytes BIGINT";
    let line = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326"#;
    let values =
        "127.0.0.1|~|frank|2000-10-10T20:55:36Z|GET /a.gif HTTP/1.0|GET|/a.gif|HTTP/1.0|200|2326";
    let broken = r#"::1 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03 \"" 400 -"#;
    let odd = r#"::1|~|~|2000-10-10T20:55:36Z|\x16\x03 \"|~|~|~|400|~"#;
    assert_eq!(
        inferred(&pattern("common"), &format!("{line}\n{broken}\n")),
        [columns, values, odd]
    );

    let agents = r#""http://www.example.com/" "Mozilla/4.08 [en] (Win98)""#;
    assert_eq!(
        inferred(&pattern("combined"), &format!("{line} {agents}\n")),
        [
            format!("{columns}, referer TEXT, agent TEXT"),
            format!("{values}|http://www.example.com/|Mozilla/4.08 [en] (Win98)")
        ]
    );
}

#[test]
fn syslog_of_both_kinds_is_read_with_its_types() {
    let body = "<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed\n\
                Feb  5 17:32:18 10.0.0.99 Use the BFG!\n";
    assert_eq!(
        inferred(&pattern("syslog3164"), body),
        [
            "priority INT, time TEXT, host TEXT, app TEXT, pid TEXT, message TEXT",
            "34|Oct 11 22:14:15|mymachine|su|230|'su root' failed",
            "~|Feb  5 17:32:18|10.0.0.99|~|~|Use the BFG!",
        ]
    );
    let body = "<165>1 2003-10-11T22:14:15.003Z host.example.com evntslog - ID47 \
                [example@32473 iut=\"3\" title=\"a\\]b\"][x@1] \u{feff}An event\n\
                <34>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - -\n";
    assert_eq!(
        inferred(&pattern("syslog5424"), body),
        [
            "priority INT, version INT, time TIMESTAMP, host TEXT, app TEXT, procid TEXT, \
             msgid TEXT, structured_data TEXT, message TEXT",
            "165|1|2003-10-11T22:14:15.003Z|host.example.com|evntslog|~|ID47|\
             [example@32473 iut=\"3\" title=\"a\\]b\"][x@1]|An event",
            "34|1|2003-08-24T12:14:15.000003Z|192.0.2.1|myproc|8710|~|~|~",
        ]
    );
}

#[test]
fn logfmt_pairs_become_columns_like_the_members_of_an_object() {
    let body = "at=info msg=\"a \\\"b\\\"\" took=1.5 ok\n\
                took=2 at= extra=x\n\
                no pairs at all\n\
                a=1 a=2\n\
                msg=\"open\n\
                =x\n";
    assert_eq!(
        inferred(&pattern("logfmt"), body),
        [
            "at TEXT, msg TEXT, took DOUBLE, ok BOOLEAN, extra TEXT, a BIGINT",
            "info|a \"b\"|1.5|true|~|~",
            "~|~|2.0|~|x|~",
            "3 no_match -: the line does not match the pattern `logfmt`: \"no pairs at all\"",
            "4 duplicate_key a: the record names this key twice; send it once",
            "5 syntax -: column 5: the quoted value that begins here does not end well",
            "6 syntax -: column 1: expected a key, as in key=value",
        ]
    );
}

#[test]
fn a_line_too_long_for_a_pattern_is_refused_alone() {
    let schema = schema(&[("a", Type::Text)]);
    let body = format!("{}\nshort\n", "x".repeat(65 << 10));
    let batches = read(&pattern("(?<a>.*)"), &schema, &body);
    assert_eq!(rows(&batches), ["short"]);
    assert!(refusals(&batches)[0].starts_with("1 row_too_large"), "{:?}", refusals(&batches));
    assert_eq!(
        rows(&read(
            &Format::Text(Pattern::default()),
            &self::schema(&[("line", Type::Text)]),
            &body
        ))
        .len(),
        2
    );
}

/// The log of a system read by `pattern`, and the expected parse that lies beside it.
fn agrees(system: &str, columns: &[&str], text: &str) {
    let Some(log) = shared(&format!("logs/{system}_2k.log")) else { return };
    let Some(expected) = shared(&format!("logs/{system}_2k.log_structured.csv")) else { return };
    let columns: Vec<_> = columns.iter().map(|name| (*name, Type::Text)).collect();
    let schema = schema(&columns);
    let limits = Limits::default();
    let parsed = decode(pattern(text), limits, &schema, Unknown::DeadLetter, &log);
    let csv = Format::Csv(Dialect::COMMA);
    let expected = decode(csv, limits, &schema, Unknown::Drop, &expected).unwrap_or_default();
    let parsed = parsed.unwrap_or_default();
    assert_eq!(refusals(&parsed), [""; 0], "{system}");
    assert_eq!(rows(&parsed).len(), 2000, "{system}");
    for (line, (found, wanted)) in rows(&parsed).iter().zip(rows(&expected)).enumerate() {
        assert_eq!(*found, wanted, "{system}, line {}", line + 1);
    }
}

#[test]
fn the_logs_of_four_systems_are_read_as_expected() {
    agrees(
        "Apache",
        &["Time", "Level", "Content"],
        r"\[(?<Time>[^\]]+)\] \[(?<Level>\w+)\] (?<Content>.*)",
    );
    agrees(
        "HDFS",
        &["Date", "Time", "Pid", "Level", "Component", "Content"],
        r"(?<Date>\d{6}) (?<Time>\d{6}) (?<Pid>\d+) (?<Level>\w+) (?<Component>[^:]+): (?<Content>.*)",
    );
    // The expected parse leaves out the spaces at the end of a line.
    agrees(
        "Linux",
        &["Month", "Date", "Time", "Level", "Component", "PID", "Content"],
        r"(?<Month>\w{3}) +(?<Date>\d+) (?<Time>[\d:]+) (?<Level>\S+) +(?<Component>[^\[:]+?)(?:\[(?<PID>\d+)\])?: *(?<Content>.*?) *",
    );
    agrees(
        "OpenSSH",
        &["Date", "Day", "Time", "Component", "Pid", "Content"],
        r"(?<Date>\w{3}) +(?<Day>\d+) (?<Time>[\d:]+) (?<Component>\S+) sshd\[(?<Pid>\d+)\]: (?<Content>.*?) *",
    );
}

#[test]
fn the_built_in_syslog_reads_two_real_systems_without_a_loss() {
    for system in ["Linux", "OpenSSH"] {
        let Some(log) = shared(&format!("logs/{system}_2k.log")) else { return };
        let columns = ["priority", "time", "host", "app", "pid", "message"];
        let columns: Vec<_> = columns.iter().map(|name| (*name, Type::Text)).collect();
        let schema = schema(&columns);
        let format = pattern("syslog3164");
        let batches = decode(format, Limits::default(), &schema, Unknown::DeadLetter, &log);
        let batches = batches.unwrap_or_default();
        assert_eq!((rows(&batches).len(), refusals(&batches).len()), (2000, 0), "{system}");
    }
}

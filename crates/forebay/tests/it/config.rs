//! Settings: precedence, places of errors, and what is refused.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use expect_test::{Expect, expect};
use forebay::config::memory::Sum;
use forebay::config::{Config, Flags, Sources};

fn sources(file: &str, env: &[(&str, &str)]) -> Sources {
    Sources {
        file: Some(("forebay.toml".to_owned(), file.to_owned())),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: Flags::default(),
    }
}

fn load(file: &str, env: &[(&str, &str)]) -> Config {
    sources(file, env).load().unwrap().config
}

fn check(file: &str, env: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&sources(file, env).load().unwrap_err().to_string());
}

#[test]
fn a_misspelt_setting_is_placed_and_the_right_one_named() {
    check(
        "data_dir = \"x\"\nlisten_on = \"127.0.0.1:1\"\n",
        &[],
        expect![[r#"forebay.toml:2:1: unknown setting `listen_on`; did you mean `listen`?"#]],
    );
    check(
        "[http]\ndeadlin = \"3s\"\n",
        &[],
        expect!["forebay.toml:2:1: unknown setting `deadlin`; did you mean `deadline`?"],
    );
    check(
        "[streams.a]\non_invalid = \"rejct\"\n",
        &[],
        expect!["forebay.toml:2:14: unknown value `rejct`; did you mean `reject`?"],
    );
}

#[test]
fn a_value_of_the_wrong_shape_is_placed() {
    check(
        "[memory]\nbudget = \"512 buckets\"\n",
        &[],
        expect![[
            r#"forebay.toml:2:10: `512 buckets` is not a size; write a whole number and a unit, such as "512MiB" or "1MB""#
        ]],
    );
    check(
        "[http]\n  deadline = 30\n",
        &[],
        expect![[
            r#"forebay.toml:2:14: invalid type: integer `30`, expected a duration such as "30s""#
        ]],
    );
}

#[test]
fn a_value_out_of_bounds_is_placed_where_it_stands() {
    check(
        "[memory]\nbudget = \"1MiB\"\n",
        &[],
        expect!["forebay.toml:2:10: memory.budget: 1 MiB is too little; the least is 16 MiB"],
    );
    check(
        "[streams.a.journal]\nmax = \"1KiB\"\n",
        &[],
        expect!["forebay.toml:2:7: streams.a.journal.max: 1 KiB is too little; the least is 1 MiB"],
    );
    check(
        "[streams._mine]\n",
        &[],
        expect![
            "forebay.toml:1:10: streams._mine: `_mine` begins with `_`; such names are Forebay's own"
        ],
    );
}

#[test]
fn an_environment_variable_is_named_when_it_is_at_fault() {
    check(
        "",
        &[("FOREBAY_DRAIN_DEADLINE", "soon")],
        expect![[
            r#"environment variable FOREBAY_DRAIN_DEADLINE: `soon` is not a duration; write a number and a unit, such as "100ms", "30s" or "24h""#
        ]],
    );
    check(
        "[memory]\nbudget = \"64MiB\"\n",
        &[("FOREBAY_MEMORY_BUDGET", "1KiB")],
        expect![
            "environment variable FOREBAY_MEMORY_BUDGET: memory.budget: 1 KiB is too little; the least is 16 MiB"
        ],
    );
    check(
        "",
        &[("FOREBAY_HTTP__DEDLINE", "3s")],
        expect![
            "environment variable FOREBAY_HTTP__DEDLINE: unknown setting `dedline`; did you mean `deadline`?"
        ],
    );
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let mut sources = sources(
        "listen = \"127.0.0.1:1\"\ndata_dir = \"file\"\n[http]\ndeadline = \"1s\"\nmin_rate = \"2KiB\"\n",
        &[
            ("FOREBAY_DATA_DIR", "env"),
            ("FOREBAY_LISTEN", "127.0.0.1:2"),
            ("FOREBAY_HTTP_DEADLINE", "2s"),
        ],
    );
    sources.flags.listen = Some("127.0.0.1:3".to_owned());
    let config = sources.load().unwrap().config;
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.data_dir.to_str(), Some("env"));
    assert_eq!(config.http.deadline, Duration::from_secs(2));
    assert_eq!(config.http.min_rate, 2048);
    assert_eq!(config.http.header_deadline, Duration::from_secs(10));
}

#[test]
fn a_variable_reaches_numbers_switches_lists_and_streams() {
    let config = load(
        "",
        &[
            ("FOREBAY_HTTP_MAX_CONNECTIONS", "7"),
            ("FOREBAY_AUTO_CREATE", "false"),
            ("FOREBAY_HTTP_ORIGINS", "[\"https://a.example\"]"),
            ("FOREBAY_STREAMS__Shop__SCHEMA", "a INT"),
        ],
    );
    assert_eq!(config.http.max_connections, 7);
    assert!(!config.auto_create);
    assert_eq!(config.http.origins, ["https://a.example"]);
    assert_eq!(config.streams["Shop"].schema.as_deref(), Some("a INT"));
}

#[test]
fn a_likely_typo_in_a_variable_is_a_warning() {
    let loaded = sources("", &[("FOREBAY_LISTN", "x"), ("FOREBAY_PY", "python3")]).load().unwrap();
    assert_eq!(
        loaded.warnings,
        ["FOREBAY_LISTN is not a setting and is ignored; did you mean FOREBAY_LISTEN?"]
    );
}

#[test]
fn beyond_loopback_it_needs_tokens_or_consent() {
    check(
        "listen = \"0.0.0.0:8080\"\n",
        &[],
        expect![
            "forebay.toml:1:10: listen: 0.0.0.0:8080 can be reached from other machines and no [[tokens]] are set, so anyone could write; add a token, listen on 127.0.0.1, or set insecure = true"
        ],
    );
    assert!(load("listen = \"127.0.0.1:8080\"\n", &[]).auto_create);
    let open = load("listen = \"0.0.0.0:8080\"\ninsecure = true\n", &[]);
    assert!(!open.auto_create, "auto_create is the default on loopback only");
}

#[test]
fn faults_need_consent_in_the_environment() {
    let file = "[faults]\npanic_on = \"MARKER\"\n";
    check(
        file,
        &[],
        expect![
            "forebay.toml:1:2: faults: faults on purpose need FOREBAY_FAULTS=1 in the environment; they are for tests only"
        ],
    );
    let config = load(file, &[("FOREBAY_FAULTS", "1")]);
    assert_eq!(config.faults.unwrap().panic_on.as_deref(), Some("MARKER"));
}

#[test]
fn a_token_without_a_good_hash_is_refused() {
    check(
        "[[tokens]]\nname = \"shop\"\nhash = \"plain\"\n",
        &[],
        expect![[
            r#"forebay.toml:3:8: tokens.0.hash: a token's hash is `sha256:` and 64 hexadecimal digits; make one with: printf %s "$TOKEN" | sha256sum"#
        ]],
    );
}

#[test]
fn the_example_of_the_reference_loads() {
    let hash = "0".repeat(64);
    let config = load(
        &format!(
            r#"
            listen   = "127.0.0.1:8080"
            data_dir = "forebay-data"
            [memory]
            budget = "512MiB"
            [http]
            deadline = "30s"
            [drain]
            deadline = "30s"
            [[tokens]]
            name = "shop"
            hash = "sha256:{hash}"
            streams = ["flights"]
            [streams.flights]
            schema = """
              year INT NOT NULL, carrier TEXT NOT NULL CHECK (length(carrier) = 2),
              distance INT CHECK (distance > 0)
            """
            unknown    = "dead_letter"
            on_invalid = "dead_letter"
            transform  = "SELECT *, distance * 1.609 AS km FROM flights WHERE carrier <> 'XX'"
            journal    = {{ max = "4GiB" }}
            workers    = {{ validate = 2, transform = 2, persist = 1 }}
            class      = "normal"
            sink       = {{ type = "delta" }}
            "#
        ),
        &[],
    );
    assert_eq!(config.streams["flights"].journal_max, Some(4 << 30));
    forebay::api::engine_config(&config).unwrap();
}

#[test]
fn sql_at_fault_is_placed_in_the_file_whatever_string_holds_it() {
    check(
        "[streams.a]\nschema = \"x INT, y WRONG\"\n",
        &[],
        expect![
            "forebay.toml:2:20: streams.a.schema: unknown type `WRONG`: the types are BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p,s), TEXT, DATE, TIMESTAMP, JSON"
        ],
    );
    check(
        "[streams.a]\nschema = \"\"\"\n  x INT,\n  y INT CHECK (z > 0)\n\"\"\"\n",
        &[],
        expect!["forebay.toml:4:16: streams.a.schema: unknown column `z`"],
    );
    check(
        "[streams.a]\nschema = 'x INT'\ntransform = \"\"\"\n  SELECT x,\n    y\n  FROM a\n\"\"\"\n",
        &[],
        expect!["forebay.toml:5:5: streams.a.transform: unknown column `y`"],
    );
    check(
        "[streams.a]\nschema = \"x INT\"\n",
        &[("FOREBAY_STREAMS__a__TRANSFORM", "SELECT z FROM a")],
        expect![
            "environment variable FOREBAY_STREAMS__a__TRANSFORM: streams.a.transform: line 1, column 8: unknown column `z`"
        ],
    );
}

#[test]
fn every_mistake_of_a_file_is_told_in_the_order_of_the_file() {
    check(
        r#"
lisen = "127.0.0.1:8080"
[memory]
budget = "1MiB"
[http]
deadline = 30
min_rat = "1KiB"
rate_grace = "99d"
[[tokens]]
hash = "plain"
[streams.shop]
schema = """
  id BIGINT,
  at TIMESTAM
"""
unknown = "ignore"
[streams."9lives"]
transform = "SELECT 1"
journal = { max = "1KiB" }
"#,
        &[("FOREBAY_DRAIN_DEADLINE", "1ms"), ("FOREBAY_KEYS_COUNT", "none")],
        expect![[r#"
            forebay.toml:2:1: unknown setting `lisen`; did you mean `listen`?
            forebay.toml:4:10: memory.budget: 1 MiB is too little; the least is 16 MiB
            forebay.toml:6:12: invalid type: integer `30`, expected a duration such as "30s"
            forebay.toml:7:1: unknown setting `min_rat`; did you mean `min_rate`?
            forebay.toml:8:14: http.rate_grace: must lie between 0ms and 3600s, not 8553600s
            forebay.toml:9:1: tokens.0: a token needs a name of at most 128 characters
            forebay.toml:10:8: tokens.0.hash: a token's hash is `sha256:` and 64 hexadecimal digits; make one with: printf %s "$TOKEN" | sha256sum
            forebay.toml:14:6: streams.shop.schema: unknown type `TIMESTAM`: the types are BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p,s), TEXT, DATE, TIMESTAMP, JSON; did you mean `TIMESTAMP`?
            forebay.toml:16:11: unknown value `ignore`; known here: dead_letter, drop, keep
            forebay.toml:17:10: streams.9lives: `9lives` must begin with a letter A-Z or a-z
            forebay.toml:19:19: streams.9lives.journal.max: 1 KiB is too little; the least is 1 MiB
            environment variable FOREBAY_KEYS_COUNT: invalid type: string "none", expected usize
            environment variable FOREBAY_DRAIN_DEADLINE: drain.deadline: must lie between 100ms and 3600s, not 1ms"#]],
    );
}

#[test]
fn what_is_no_toml_is_told_once_a_line_and_alone() {
    check(
        "listen = 127.0.0.1:8080\nlisten_on = 1\n[http\ndeadline = \"3s\"\n",
        &[],
        expect![[r#"
        forebay.toml:1:15: invalid float, expected nothing
        forebay.toml:3:6: unclosed table, expected `]`"#]],
    );
}

#[test]
fn f3_the_memory_sum_holds_the_whole_budget_and_what_stands_beside_it() {
    let config = load(
        "[memory]\nbudget = \"64MiB\"\n[http]\nmax_connections = 10\n[limits]\nstreams = 8\n[keys]\ncount = 1000\n",
        &[],
    );
    let sum = Sum::of(&config);
    let bytes =
        |parts: &[forebay::config::memory::Part]| parts.iter().map(|p| p.bytes).sum::<u64>();
    let budget = bytes(&sum.budget);
    assert!(budget <= 64 << 20 && budget > 63 << 20, "{budget}");
    assert_eq!(sum.total(), budget + bytes(&sum.beside));
    expect![[r#"
        memory
          budget             64.0 MiB  [memory] budget, in fixed shares
            intake           25.6 MiB  uploads on their way into the journal
            decode            6.4 MiB  batches being decoded
            lanes            19.2 MiB  transform and flushes
            query            12.8 MiB  queries
          beside it          93.7 MiB  bounded by counts
            connections       5.2 MiB  42 × 128 KiB read ahead ([http] max_connections)
            keys              1.3 MiB  idempotency keys of all streams ([keys] count)
            tails             3.2 MiB  8 journals × 409.6 KiB for readers ([limits] streams)
            log                 4 MiB  8192 lines wait at most
            program            80 MiB  code, runtime, planner, allocator
          total             157.7 MiB  the most this process holds"#]]
    .assert_eq(&format!("memory\n{sum}"));
    let many =
        load("[memory]\nbudget = \"64MiB\"\n[limits]\nstreams = 8\n[keys]\ncount = 2000000\n", &[]);
    assert!(Sum::of(&many).total() > sum.total() + (200 << 20), "a million keys more are in it");
}

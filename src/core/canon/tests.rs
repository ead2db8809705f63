//! Against the vectors of the protocol and what a JavaScript engine says.

use serde_json::json;

use super::*;

fn canon(text: &str) -> String {
    canonical_json(&serde_json::from_str(text).unwrap())
}

#[test]
fn texts_alone_are_written_the_same() {
    for text in ["", "plain", "\"quoted\" \\ \n\u{7f} \u{1f600}"] {
        assert_eq!(
            canonical_texts(&[("a", text), ("b", "2")]),
            canonical_json(&json!({ "b": "2", "a": text }))
        );
    }
}

#[test]
fn the_chain_of_the_protocol_holds() {
    // protocol.md §28.
    let payload = canon(
        r#"{"value": {"b": 1.50, "a": [1e21, -0.0, "\u00e9\u0007", "\ud83d\ude00"], "Z": true},
            "key": "k\u00ff"}"#,
    );
    assert_eq!(
        payload,
        "{\"key\":\"k\u{ff}\",\"value\":{\"Z\":true,\
         \"a\":[1e+21,0,\"\u{e9}\\u0007\",\"\u{1f600}\"],\"b\":1.5}}"
    );
    let first = audit_hash(
        GENESIS,
        "mesh1",
        "state_set",
        Some("mem1"),
        &payload,
        Wall(1_700_000_000_000),
    );
    assert_eq!(
        first,
        "614a30b5fbc601eec509aa3e9417e11026b74e66aa9c5c5e8c34a14695e0ad10"
    );
    let second = audit_hash(
        &first,
        "mesh1",
        "peer_left",
        None,
        "{}",
        Wall(1_700_000_000_123),
    );
    assert_eq!(
        second,
        "5d61097ee1402916bac030b961edee137980db867bfc1330cbffd4fb3960978b"
    );
}

#[test]
fn numbers_are_written_as_javascript_writes_them() {
    let pairs = [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1", "1"),
        ("-1", "-1"),
        ("1.50", "1.5"),
        ("1.0", "1"),
        ("100", "100"),
        ("123456789", "123456789"),
        ("-1234.5678", "-1234.5678"),
        ("0.1", "0.1"),
        ("0.5", "0.5"),
        ("12345678901234567000.5", "12345678901234567000"),
        ("100000000000000000000", "100000000000000000000"),
        ("123456789012345680000", "123456789012345680000"),
        ("999999999999999900000", "999999999999999900000"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("-1.5e21", "-1.5e+21"),
        ("1000000000000000000000", "1e+21"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("0.001", "0.001"),
        ("0.000001", "0.000001"),
        ("0.00000123", "0.00000123"),
        ("0.0000001", "1e-7"),
        ("1.23e-7", "1.23e-7"),
        ("5e-324", "5e-324"),
        ("1e-400", "0"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("9007199254740991", "9007199254740991"),
        ("9007199254740993", "9007199254740992"),
        ("9223372036854775807", "9223372036854776000"),
        ("18446744073709551615", "18446744073709552000"),
        ("-9223372036854775808", "-9223372036854776000"),
        ("4.35", "4.35"),
        // Exactly half way between two shortest forms: the even one.
        ("23903941389068.8125", "23903941389068.812"),
        ("1712746979967247.25", "1712746979967247.2"),
        ("0.1e1", "1"),
        ("1e23", "1e+23"),
        ("9.999999999999999e22", "1e+23"),
        ("1.0000000000000001e23", "1.0000000000000001e+23"),
    ];
    for (text, expected) in pairs {
        assert_eq!(canon(text), expected, "{text}");
    }
}

#[test]
fn reading_a_number_is_exact() {
    // Off by one unit in the last place without serde_json's `float_roundtrip`.
    for text in [
        "0.2638344616030823",
        "51.24817837550540",
        "8.87e+22",
        "31.245270191439438",
    ] {
        let exact: f64 = text.parse().unwrap();
        let read: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read.as_f64().unwrap().to_bits(), exact.to_bits(), "{text}");
    }
}

#[test]
fn strings_are_escaped_as_javascript_escapes_them() {
    assert_eq!(
        canonical_json(&json!(
            "\"\\/\u{8}\t\n\u{c}\r\0\u{b}\u{1f} \u{7f}\u{2028}<\u{e9}"
        )),
        "\"\\\"\\\\/\\b\\t\\n\\f\\r\\u0000\\u000b\\u001f \u{7f}\u{2028}<\u{e9}\""
    );
}

#[test]
fn keys_are_ordered_by_utf16_at_every_level() {
    let value = json!({
        "\u{fffd}": 1, "\u{1f600}": 2, "a": [{"z": null, "b\"": false}], "B": {}, "": [],
        "10": 3, "9": 4,
    });
    assert_eq!(
        canonical_json(&value),
        "{\"\":[],\"10\":3,\"9\":4,\"B\":{},\"a\":[{\"b\\\"\":false,\"z\":null}],\
         \"\u{1f600}\":2,\"\u{fffd}\":1}"
    );
}

#[test]
fn depth_is_no_danger() {
    let mut value = json!(1);
    // Deeper than the stack would stand, were it recursive; taken apart below, because
    // dropping it is.
    for _ in 0..200_000 {
        value = Value::Array(vec![value]);
    }
    assert_eq!(canonical_json(&value).len(), 400_001);
    while let Value::Array(mut items) = value {
        value = items.pop().unwrap_or(Value::Null);
    }
}

#[test]
fn the_hash_names_an_absent_actor_null() {
    let named = audit_hash("p", "m", "e", Some("null"), "{}", Wall(0));
    assert_eq!(named, audit_hash("p", "m", "e", None, "{}", Wall(0)));
    assert_ne!(named, audit_hash("p", "m", "e", Some("x"), "{}", Wall(0)));
}

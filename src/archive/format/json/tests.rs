use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[test]
fn documents() {
    for text in [
        "{}",
        "[]",
        "{ }",
        "[\t]",
        r#"{"a":1,"a":{"b":[true,false,null,"x"]}, "c" : [ [ ] , { } ] }"#,
        "[0,-0,1.5,-10.25e+3,2E-2,1e5,1e999]",
        r#"["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"]"#,
        "[\"\u{7f}\u{2028}\"]",
        "[1 , 2\t]",
    ] {
        assert!(is_embeddable(text), "{text}");
    }
}

#[test]
fn anything_else() {
    let without_blanks = r#"
        { } [ [} {] 1 null "a" {}{} [[] []] [1]2] [1,] [,1] [,] {,} {1:2} {"a"} {"a":} {"a":1,} {a:1} {'a':1} {"a":1] ["a":1] {"a":[1}}
        [01] [1.] [.5] [+1] [-] [1e] [1e+] [0x1] [--1] [NaN] [Infinity] [True] [nul] [nulll] [truefalse] ["] ["a] ["\x"] ["\"]
        ["\u12"] ["\u12g4"] ["\u+123"] ["\ud800"] ["\udc00"] ["\ud800\u0041"] ["\ud800\n"] [1]//] [/**/] [é]
    "#;
    let with_blanks = [
        "",
        " {}",
        "{} ",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[\n]",
        "[1,\r2]",
        "[\u{c}]",
        "[\u{a0}]",
        "\u{feff}[]",
        "[\"\t\"]",
        "[\"\n\"]",
        "[\"\u{1f}\"]",
    ];
    for text in without_blanks.split_ascii_whitespace().chain(with_blanks) {
        assert!(!is_embeddable(text), "{text:?}");
    }
}

#[test]
fn depth() {
    // Objects in arrays, each level in another way than the one around it.
    let nested = |depth: usize| {
        let levels = || (0..depth).map(|level| level % 2 == 0);
        let open: String = levels().map(|array| if array { "[" } else { "{\"a\":" }).collect();
        let close: String = levels().rev().map(|array| if array { "]" } else { "}" }).collect();
        format!("{open}0{close}")
    };
    assert_eq!(nested(3), r#"[{"a":[0]}]"#);
    assert!(is_embeddable(&nested(127)) && is_embeddable(&nested(128)));
    assert!(!is_embeddable(&nested(129)) && !is_embeddable(&nested(130)) && !is_embeddable(&nested(1_000_001)));
}

#[test]
fn specials_are_found_at_every_place() {
    for len in 0..40 {
        for place in 0..=len {
            for special in (0..=0xff).filter(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
                for filler in [b'!', b' ', b'~', 0x7f, 0x80, 0xa2, 0xdc, 0xff, b'#', b']', b'['] {
                    let mut bytes = vec![filler; len];
                    assert_eq!(plain_len(&bytes), len);
                    bytes.insert(place, special);
                    bytes.push(special);
                    assert_eq!(plain_len(&bytes), place);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn strings_read_back(text: String) {
        let mut out = Vec::new();
        write_string(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    /// But for numbers beyond what serde_json holds, which are JSON all the same.
    #[test]
    fn agrees_with_serde_json(
        text in "[\\[{](\"a\": ?)?([\\[{\\]},:0] ?|\"(a|\\\\n|\\\\u[d0][89cf]0[0a])*\"|-?[0-9]{1,2}(\\.[0-9])?(e-[0-9])?|null|true|,\"b\":){0,6}[\\]}]",
    ) {
        prop_assert_eq!(is_embeddable(&text), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn one_wrong_byte_is_judged_as_serde_json_does(place in 0..60usize, byte in 0x20..0x7fu8) {
        let mut bytes = br#"{"a":[1,-2.5e3,"x\"\u00e9\ud83d\ude00"],"b":{"c":null},"d":[{},[]]}"#.to_vec();
        bytes[place] = byte;
        let text = String::from_utf8(bytes).unwrap();
        let whole = text.starts_with('{') && text.ends_with('}');
        prop_assert_eq!(is_embeddable(&text), whole && serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    }
}

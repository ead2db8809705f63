//! What RFC 9112 says of answers and bodies, and how long a request may take.

use super::*;

fn hook(headers: &str, body: &str) -> Vec<u8> {
    let head = "POST /hook/set-status HTTP/1.1\r\nConnection: close\r\n";
    format!("{head}{headers}\r\n{body}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    hook("Transfer-Encoding: chunked\r\n", body)
}

/// What follows the head.
fn body(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .map_or(answer, |(_, body)| body)
}

#[test]
fn answers_to_head_have_no_body() {
    everywhere(|broker| {
        for target in ["/health", "/nowhere", "/ws"] {
            let closing = format!("HEAD {target} HTTP/1.1\r\nConnection: close\r\n\r\n");
            let answer = broker.exchange(closing.as_bytes());
            assert!(answer.contains("\r\nContent-Length: 9\r\n"), "{answer}");
            assert_eq!(body(&answer), "", "{target}");
        }
        let refused = broker.exchange(format!("HEAD /ws HTTP/1.1\r\n{UPGRADE}").as_bytes());
        assert_eq!((status(&refused), body(&refused)), ("400", ""));
        // What comes next on the connection is none of its business.
        let next = broker.exchange(b"HEAD /health HTTP/1.1\r\n\r\nno request\r\n\r\n");
        assert!(next.ends_with("\r\n\r\nbad request"), "{next}");
    });
}

#[test]
fn chunked_bodies_are_read_as_the_standard_says() {
    everywhere(|broker| {
        let cwd = r#"{"cwd":"/"}"#;
        for body in [
            format!("b\r\n{cwd}\r\n0\r\n\r\n"),
            format!("b;a=b\r\n{cwd}\r\n0\r\n\r\n"),
            format!("b\r\n{cwd}\r\n0;end\r\nA: b\r\n\r\n"),
        ] {
            let answer = broker.exchange(&chunked(&body));
            assert!(
                answer.ends_with(r#""cwd and status required"}"#),
                "{answer}"
            );
        }
        assert_eq!(status(&broker.exchange(&chunked("+b\r\n"))), "400");
    });
}

#[test]
fn a_body_over_the_cap_is_413_also_if_it_came_whole() {
    everywhere(|broker| {
        let most = "x".repeat(65_536);
        let one = format!("10000\r\n{most}\r\n0\r\n\r\n");
        assert_eq!(status(&broker.exchange(&chunked(&one))), "500", "no JSON");
        let two = format!("1\r\nx\r\n{one}");
        assert_eq!(status(&broker.exchange(&chunked(&two))), "413");
        let large = format!("10001\r\nx{most}\r\n0\r\n\r\n");
        assert_eq!(status(&broker.exchange(&chunked(&large))), "413");
        let endless = format!("ffffffff\r\n{most}{most}");
        assert_eq!(status(&broker.exchange(&chunked(&endless))), "413");
    });
}

#[test]
fn requests_that_never_end_are_408_when_a_hello_would_be_too_late() {
    let broker = Broker::start_with(DRIVERS[0], 1, |config| {
        config.core.hello_timeout = Millis(400);
    });
    let begun = [
        &b""[..],
        b"GET /hea",
        b"POST /hook/set-status HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
    ];
    let waiting = begun.map(|request| {
        let mut stream = broker.connect();
        stream.write_all(request).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        stream
    });
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), "408");
    }
}

//! Documents that change by themselves, for trying URL watches (protocol.md §2.6). They say nothing
//! but the time.

use serde::Serialize;

use super::reply::Reply;
use crate::core::time::Wall;

/// How long `/test/flip` says the same, in seconds.
const FLIP_SECONDS: i64 = 10;

#[derive(Serialize)]
struct Clock {
    now: Wall,
    unix: i64,
}

#[derive(Serialize)]
struct Flip {
    state: &'static str,
}

fn seconds(now: Wall) -> i64 {
    now.0.div_euclid(1000)
}

/// `/test/clock`: another document each second.
pub(super) fn clock(now: Wall) -> Reply {
    let unix = seconds(now);
    let now = Wall(unix.saturating_mul(1000));
    Reply::json(200, &Clock { now, unix })
}

/// `/test/flip`: `up` and `down` by turns.
pub(super) fn flip(now: Wall) -> Reply {
    let odd = seconds(now).div_euclid(FLIP_SECONDS) & 1 == 1;
    let state = if odd { "down" } else { "up" };
    Reply::json(200, &Flip { state })
}

/// `/test/html`: the clock as a page.
pub(super) fn html(now: Wall) -> Reply {
    let now = Wall(seconds(now).saturating_mul(1000));
    Reply::html(format!(
        "<!doctype html>\n<title>Holdfast</title>\n<p>It is <time>{now}</time>.</p>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reply: &Reply) -> String {
        String::from_utf8(reply.body().to_vec()).unwrap()
    }

    #[test]
    fn they_change_with_the_time_and_only_with_it() {
        let at = Wall(1_700_000_000_123);
        assert_eq!(
            body(&clock(at)),
            r#"{"now":"2023-11-14T22:13:20.000Z","unix":1700000000}"#
        );
        assert_eq!(body(&clock(at)), body(&clock(Wall(at.0 + 800))));
        assert_ne!(body(&clock(at)), body(&clock(Wall(at.0 + 1000))));
        assert_eq!(body(&flip(Wall(9_999))), r#"{"state":"up"}"#);
        assert_eq!(body(&flip(Wall(10_000))), r#"{"state":"down"}"#);
        assert_eq!(body(&flip(Wall(20_000))), r#"{"state":"up"}"#);
        assert!(body(&html(at)).contains("<time>2023-11-14T22:13:20.000Z</time>"));
    }
}

//! Every message decoder of the core, through its public face: whole stories with several sockets,
//! members and meshes, in which every message is answered as the protocol says, and reaches nobody
//! that it may not reach.

mod expect;
mod generate;
mod hook;
mod judge;
mod script;
mod story;
mod world;

pub(super) use generate::{WORDS, generate, mutate};

use script::Step;
use story::Story;

/// Steps of one story that are played.
const STEPS_MAX: usize = 120;

/// Plays the story in `input`; one in sixteen twice, and then exactly the same must happen.
pub(super) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let steps: Vec<Step<'_>> = text
        .lines()
        .filter_map(script::parse)
        .take(STEPS_MAX)
        .collect();
    let twice = crate::corpus::fingerprint(input).is_multiple_of(16);
    let first = play(&steps, twice);
    if twice {
        assert_eq!(first, play(&steps, true), "the same story ended otherwise");
    }
}

/// Sessions of both meshes for a hook to find: two in one directory, one that takes no mail.
const PRESENT: &str = r#"
0 !launch 1 7 a ,"cwd":"/w","pid":7
1 !launch 2 8 b ,"cwd":"/w","pid":8
2 !hello 3 - c ,"cwd":"/w/2","pid":8
3 !hello 5 - d ,"cwd":"/w/2","pid":9
2 {"type":"set_status","status":"dnd"}
0 {"type":"send","id":"1","targetSpec":"<m3>","priority":"low","nonce":"","ciphertext":"held"}
"#;

/// Posts `body` to a broker with sessions, twice.
pub(super) fn run_hook(body: &[u8]) {
    let mut story = Story::new(false, false);
    for step in PRESENT.lines().filter_map(script::parse) {
        story.play(&step);
    }
    story.hook(body);
    story.settle();
    story.hook(body);
    story.settle();
    story.finish();
}

fn play(steps: &[Step<'_>], tracing: bool) -> u64 {
    let small = steps.first() == Some(&Step::Small);
    let mut story = Story::new(small, tracing);
    for step in steps {
        story.play(step);
    }
    story.finish();
    story.trace()
}

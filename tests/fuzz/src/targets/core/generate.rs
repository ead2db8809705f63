//! Stories made up, and changed with an eye to what a message is.

use crate::Rng;
use crate::mutate;

/// What stands in the way of careless decoders, as JSON text or part of it.
pub(in crate::targets) const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1e999",
    "1e308",
    "0.1",
    "9007199254740993",
    "18446744073709551616",
    "\"\"",
    "\"*\"",
    "\"@all\"",
    "\"@all/team\"",
    "\"@a\"",
    "\"#t\"",
    "\"<m1>\"",
    "\"<m2>\"",
    "\"<m5>\"",
    "\"<s7>\"",
    "\"<s8>\"",
    "\"<last>\"",
    "\"now\"",
    "\"next\"",
    "\"low\"",
    "\"idle\"",
    "\"working\"",
    "\"dnd\"",
    "\"name 2\"",
    "\"<A*512>\"",
    "\"<A*513>\"",
    "\"<\u{e9}*2048>\"",
    "\"<\u{1f600}*1024>\"",
    "\"<A*4097>\"",
    "\"<A*70000>\"",
    "<[*200>1<]*200>",
    "<[*9000>1<]*9000>",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"a\":1,\"a\":2}",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\\"|\\n\"",
    "\"'; DROP\"",
    "\u{1}",
    "\"x",
    "{\"messagesIn\":1,\"errors\":1e300}",
    "{\"messagesIn\":-1}",
    "{\"x\":\"\\udc00\"}",
    "[{\"name\":\"a/b\"},{\"name\":\"a\",\"role\":\"r\"}]",
    "[{\"name\":1}]",
    "{\"type\":\"send\"}",
    "\"list_peers\"",
    "\"hello\"",
    "\"send\"",
    "\"frobnicate\"",
    "1700000000000",
    "60001",
];

/// Names that decoders ask for.
const FIELDS: &[&str] = &[
    "type",
    "_reqId",
    "id",
    "targetSpec",
    "priority",
    "nonce",
    "ciphertext",
    "client_message_id",
    "request_fingerprint",
    "replyToId",
    "brokerMessageId",
    "clientMessageId",
    "messageId",
    "status",
    "summary",
    "stats",
    "visible",
    "avatar",
    "title",
    "bio",
    "capabilities",
    "name",
    "role",
    "target",
    "all",
    "stale",
    "pubkey",
    "sessionPubkey",
    "meshId",
    "memberId",
    "sessionId",
    "pid",
    "cwd",
    "displayName",
    "hostname",
    "peerType",
    "channel",
    "model",
    "groups",
    "timestamp",
    "signature",
    "parentAttestation",
    "parentMemberPubkey",
    "parentMemberId",
    "toString",
    "",
];

/// One of each request, as clients write them, and of some that this broker does not know.
const REQUESTS: &[&str] = &[
    r#"{"type":"send","id":"c1","targetSpec":"<s7>","priority":"now","nonce":"bg==","ciphertext":"eA==","client_message_id":"c1","request_fingerprint":"f"}"#,
    r#"{"type":"send","id":"c2","targetSpec":"<m2>","priority":"next","nonce":"","ciphertext":"y","replyToId":"<last>"}"#,
    r#"{"type":"send","id":"c3","targetSpec":"<m1>","priority":"low","nonce":"","ciphertext":"z"}"#,
    r#"{"type":"send","id":"c4","targetSpec":"*","priority":"now","nonce":"","ciphertext":""}"#,
    r#"{"type":"send","targetSpec":"@all","priority":"low","nonce":"","ciphertext":"g"}"#,
    r##"{"type":"send","id":"c5","targetSpec":"#topic","priority":"now","nonce":"","ciphertext":""}"##,
    r#"{"type":"client_ack","brokerMessageId":"<last>","clientMessageId":"c1"}"#,
    r#"{"type":"client_ack","clientMessageId":"c1"}"#,
    r#"{"type":"message_status","messageId":"<last>","_reqId":"m"}"#,
    r#"{"type":"list_peers","_reqId":"l"}"#,
    r#"{"type":"set_status","status":"working"}"#,
    r#"{"type":"set_status","status":"dnd","_reqId":"s"}"#,
    r#"{"type":"set_status","status":"idle"}"#,
    r#"{"type":"set_summary","summary":"doing"}"#,
    r#"{"type":"set_stats","stats":{"messagesIn":3,"messagesOut":4,"toolCalls":5,"errors":1}}"#,
    r#"{"type":"set_visible","visible":false,"_reqId":"v"}"#,
    r#"{"type":"set_visible","visible":true}"#,
    r#"{"type":"set_profile","avatar":"a","title":"t","bio":"b","capabilities":["rust"],"_reqId":"p"}"#,
    r#"{"type":"join_group","name":"a/b","role":"lead","_reqId":"j"}"#,
    r#"{"type":"leave_group","name":"a/b"}"#,
    r#"{"type":"kick","target":"name 2","_reqId":"k"}"#,
    r#"{"type":"kick","all":true,"_reqId":"k"}"#,
    r#"{"type":"kick","stale":1000,"_reqId":"k"}"#,
    r#"{"type":"disconnect","target":"<m3>","_reqId":"d"}"#,
    r#"{"type":"ban","target":"<m2>","_reqId":"b"}"#,
    r#"{"type":"unban","target":"name 2","_reqId":"u"}"#,
    r#"{"type":"list_bans","_reqId":"lb"}"#,
    r#"{"type":"topic_create","name":"t","_reqId":"tc"}"#,
    r#"{"type":"topic_join","topic":"t","role":"observer","_reqId":"tj"}"#,
    r#"{"type":"topic_members","topic":"t","_reqId":"tm"}"#,
    r#"{"type":"topic_history","topic":"t","limit":3,"_reqId":"th"}"#,
    r#"{"type":"topic_mark_read","topic":"t","_reqId":"tr"}"#,
    r#"{"type":"topic_leave","topic":"t","_reqId":"tl"}"#,
    r#"{"type":"watch","url":"http://example.com/","mode":"json","extract":"a","interval":5,"notify_on":"match:x","headers":{"a":"b"},"label":"l","_reqId":"w"}"#,
    r#"{"type":"watch","url":"https://example.com/"}"#,
    r#"{"type":"unwatch","watchId":"w_00000000","_reqId":"w"}"#,
    r#"{"type":"watch_list","_reqId":"w"}"#,
    r#"{"type":"set_state","key":"k","value":1,"_reqId":"x"}"#,
    r#"{"type":"set_state","key":"k","value":{"deep":[null,"\u00e9"]}}"#,
    r#"{"type":"get_state","key":"k","_reqId":"gs"}"#,
    r#"{"type":"list_state","_reqId":"ls"}"#,
    r#"{"type":"create_stream","name":"s","_reqId":"cs"}"#,
    r#"{"type":"subscribe","stream":"s","_reqId":"su"}"#,
    r#"{"type":"unsubscribe","stream":"s","_reqId":"us"}"#,
    r#"{"type":"publish","stream":"s","data":[1,"x"],"_reqId":"pu"}"#,
    r#"{"type":"list_streams","_reqId":"lt"}"#,
    r#"{"type":"set_clock","speed":100,"_reqId":"sc"}"#,
    r#"{"type":"pause_clock","_reqId":"pc"}"#,
    r#"{"type":"resume_clock","_reqId":"rc"}"#,
    r#"{"type":"get_clock","_reqId":"gc"}"#,
    r#"{"type":"schedule","to":"<m2>","message":"later","deliverAt":1,"subtype":"reminder","_reqId":"sc"}"#,
    r#"{"type":"schedule","to":"<s7>","message":"m","deliverAt":1700000060000,"_reqId":"sc"}"#,
    r#"{"type":"schedule","to":"*","message":"c","cron":"*/5 0-6 1,15 * 1-5","_reqId":"sc"}"#,
    r#"{"type":"list_scheduled","_reqId":"ls"}"#,
    r#"{"type":"cancel_scheduled","scheduledId":"s","_reqId":"cs"}"#,
    r#"{"type":"mcp_register","serverName":"s","description":"d","tools":[{"name":"t","description":"e","inputSchema":{}}],"persistent":true,"_reqId":"mr"}"#,
    r#"{"type":"mcp_unregister","serverName":"s","_reqId":"mu"}"#,
    r#"{"type":"mcp_list","_reqId":"ml"}"#,
    r#"{"type":"mcp_catalog","_reqId":"mc"}"#,
    r#"{"type":"mcp_call","serverName":"s","toolName":"t","args":{"a":[1]},"_reqId":"x"}"#,
    r#"{"type":"mcp_call_response","callId":"s","result":{"rows":2},"_reqId":"y"}"#,
];

/// What happens beside messages.
const EVENTS: &[&str] = &[
    "0 ~close",
    "1 ~cut",
    "2 ~close",
    "3 ~cut",
    "0 ~ping",
    "1 ~pong 1",
    "2 ~pong 3",
    "0 ~bin",
    "~pass 20",
    "~pass 1500",
    "~pass 31000",
    "~pass 91000",
    "~hold",
    "~release",
    "~fail",
    "~ok",
    r#"~hook {"cwd":"/w","status":"working","pid":7}"#,
    r#"~hook {"cwd":"/w","status":"idle"}"#,
    "~wall 3600000",
    "~wall -3600000",
    "~shutdown",
];

/// A story from nothing: some join, then anything.
pub(in crate::targets) fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut story = String::new();
    if rng.u8(..8) == 0 {
        story.push_str("~small\n");
    }
    for _ in 0..rng.u8(1..5) {
        story.push_str(&hello(rng));
    }
    for _ in 0..rng.u8(1..25) {
        story.push_str(&line(rng));
    }
    story.into_bytes()
}

/// One change of a story.
pub(in crate::targets) fn mutate(rng: &mut Rng, story: &mut Vec<u8>) {
    match rng.u8(..8) {
        0 => mutate::lines(rng, story),
        1 => {
            let line = if rng.u8(..4) == 0 {
                hello(rng)
            } else {
                line(rng)
            };
            let ends: Vec<usize> = (0..story.len()).filter(|at| story[*at] == b'\n').collect();
            let at = rng.choice(&ends).map_or(0, |end| end + 1);
            mutate::insert(story, at, line.as_bytes());
        }
        _ => message(rng, story),
    }
}

fn hello(rng: &mut Rng) -> String {
    let (socket, member) = (rng.u8(..6), rng.u8(1..=6));
    let id = rng.choice(["s1", "s2", "s3"]).unwrap_or("s1");
    let session = rng.u8(7..11);
    let more = match rng.u8(..6) {
        0 => r#" ,"cwd":"/w","pid":7,"displayName":"d","groups":[{"name":"a/b"}],"model":"m""#,
        1 => r#" ,"groups":[],"hostname":"h","peerType":"ai","channel":"c""#,
        _ => "",
    };
    match rng.u8(..3) {
        0 => format!("{socket} !hello {member} - {id}{more}\n"),
        1 => format!("{socket} !hello {member} {session} {id}{more}\n"),
        _ => format!("{socket} !launch {member} {session} {id}{more}\n"),
    }
}

fn line(rng: &mut Rng) -> String {
    if rng.u8(..4) == 0 {
        return format!("{}\n", rng.choice(EVENTS).unwrap_or(&""));
    }
    let socket = rng.u8(..6);
    let mut text = rng
        .choice(REQUESTS)
        .map_or("", |text| text)
        .to_owned()
        .into_bytes();
    if rng.u8(..3) == 0 {
        message(rng, &mut text);
    }
    format!("{socket} {}\n", String::from_utf8_lossy(&text))
}

/// Changes a message somewhere: another value, another name, one field more, none at all.
fn message(rng: &mut Rng, text: &mut Vec<u8>) {
    let word = rng.choice(WORDS).map_or("", |word| word).as_bytes();
    let field = rng.choice(FIELDS).map_or("", |field| field);
    if rng.u8(..3) == 0 {
        // After the others, so that it is the one that counts.
        let ends: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b'}').collect();
        let at = rng.choice(&ends).copied().unwrap_or(text.len());
        let more = [b",\"", field.as_bytes(), b"\":", word].concat();
        return mutate::insert(text, at, &more);
    }
    let tokens = tokens(text);
    let Some(token) = rng.choice(&tokens).cloned() else {
        return;
    };
    let new = match rng.u8(..4) {
        0 => format!("\"{field}\"").into_bytes(),
        1 => Vec::new(),
        _ => word.to_vec(),
    };
    text.splice(token, new);
}

/// Where strings, numbers and words of JSON lie, more or less: it need not be JSON.
fn tokens(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        if text[at] == b'"' {
            at += 1;
            while at < text.len() && text[at] != b'"' && text[at] != b'\n' {
                at += 1;
            }
            at = text.len().min(at + 1);
            found.push(start..at);
        } else if text[at].is_ascii_alphanumeric() || text[at] == b'-' {
            while at < text.len() && (text[at].is_ascii_alphanumeric() || text[at] == b'-') {
                at += 1;
            }
            found.push(start..at);
        } else {
            at += 1;
        }
    }
    found
}

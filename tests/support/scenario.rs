//! Runs one scenario file against a broker of its own and acts on that broker when it asks.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use holdfast::core::ids::home_of;
use serde_json::{Map, Value, json};

use super::broker::{BIN, Broker, Launch};
use super::clients::Language;

/// Scenarios that load both cores run alone; the others wait most of the time and share.
static LOAD: RwLock<()> = RwLock::new(());

/// Does what a scenario asks of the broker beyond the usual, and answers in one line.
pub(crate) type Verbs = Box<dyn FnMut(&str, &mut Broker) -> String>;

/// A scenario to run.
pub(crate) struct Scenario {
    language: Language,
    name: &'static str,
    case: Option<&'static str>,
    threads: u16,
    meshes: usize,
    grace_ms: u64,
    heavy: bool,
    extra: Map<String, Value>,
    /// How the broker is started.
    pub(crate) launch: Launch,
    /// What it may ask beyond the usual; None for nothing.
    pub(crate) verbs: Option<Verbs>,
}

impl Scenario {
    pub(crate) fn node(name: &'static str) -> Self {
        Self::new(Language::Node, name)
    }

    pub(crate) fn python(name: &'static str) -> Self {
        Self::new(Language::Python, name)
    }

    fn new(language: Language, name: &'static str) -> Self {
        Self {
            language,
            name,
            case: None,
            threads: 1,
            meshes: 1,
            grace_ms: 3000,
            heavy: false,
            extra: Map::new(),
            launch: Launch::default(),
            verbs: None,
        }
        .flag("--send-rate", "0")
    }

    /// Runs only the cases whose name contains this.
    pub(crate) fn case(mut self, case: &'static str) -> Self {
        self.case = Some(case);
        self
    }

    /// A flag of `serve`; a later one replaces an earlier.
    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        let flags = &mut self.launch.flags;
        if let Some(at) = flags.iter().position(|flag| flag == name) {
            flags.drain(at..at + 2);
        }
        flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Something the scenario's file of facts carries beside the usual.
    pub(crate) fn fact(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }

    /// How many meshes it is given, each with the members alice (admin), bob and carol.
    pub(crate) fn meshes(mut self, meshes: usize) -> Self {
        self.meshes = meshes;
        self
    }

    /// How many loops; with more than one every loop is the home of at least one mesh.
    pub(crate) fn threads(mut self, threads: u16) -> Self {
        self.threads = threads;
        self
    }

    /// Runs while nothing else does.
    pub(crate) fn heavy(mut self) -> Self {
        self.heavy = true;
        self
    }

    /// Runs it, or skips it where its interpreter is missing.
    ///
    /// # Panics
    /// If the scenario fails, with all it said and the end of the broker's log.
    pub(crate) fn run(mut self) {
        let Some(mut command) = self.language.command(self.name) else {
            return;
        };
        let (_alone, _shared) = if self.heavy {
            (
                Some(LOAD.write().unwrap_or_else(PoisonError::into_inner)),
                None,
            )
        } else {
            (
                None,
                Some(LOAD.read().unwrap_or_else(PoisonError::into_inner)),
            )
        };
        let (grace, threads) = (format!("{}ms", self.grace_ms), self.threads.to_string());
        self = self.flag("--grace", &grace).flag("--threads", &threads);
        let mut broker = Broker::start(self.launch.clone());
        let facts = broker.dir().join("world.json");
        std::fs::write(&facts, self.facts(&broker).to_string()).expect("facts must be writable");
        command.arg(facts);
        let chosen = std::env::var("CASE").ok().filter(|case| !case.is_empty());
        command.args(chosen.as_deref().or(self.case));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("an interpreter that tells its version must start");
        let done = attend(&mut child, &mut broker, &mut self.verbs);
        let _ended_already = child.kill();
        let passed = child.wait().is_ok_and(|status| status.success());
        assert!(
            done && passed,
            "scenario {} failed; the broker's last words:\n{}",
            self.name,
            broker.last_words()
        );
    }

    fn facts(&self, broker: &Broker) -> Value {
        let meshes: Vec<Value> = provision(broker, self.meshes, self.threads);
        let mut facts = json!({
            "url": format!("{}/ws", broker.address("ws")),
            "http": broker.address("http"),
            "bin": BIN,
            "db": broker.db(),
            "graceMs": self.grace_ms,
            "long": long(),
            "meshes": meshes,
        });
        if let Some(object) = facts.as_object_mut() {
            object.extend(self.extra.clone());
        }
        facts
    }
}

/// Whether the long form was asked for, in which storms are watched as long as the issue says.
fn long() -> bool {
    std::env::var("HOLDFAST_TEST_LONG").is_ok_and(|long| long == "1")
}

/// Makes the meshes; with several loops, so that they take turns as home of a mesh.
fn provision(broker: &Broker, count: usize, threads: u16) -> Vec<Value> {
    let mut meshes: Vec<Value> = Vec::new();
    let mut tried = 0;
    while meshes.len() < count {
        let slug = format!("mesh-{tried}");
        tried += 1;
        let mesh = broker.admin(&["mesh", "create", &slug]);
        let id = mesh["meshId"]
            .as_str()
            .expect("mesh create must tell meshId")
            .to_owned();
        let wanted = meshes.len() % usize::from(threads);
        if usize::from(home_of(&id, threads)) != wanted {
            continue;
        }
        let mut members = Map::new();
        for (name, role) in [("alice", "admin"), ("bob", "member"), ("carol", "member")] {
            let args = ["member", "add", &slug, "--name", name, "--role", role];
            let mut member = broker.admin(&args);
            member["name"] = json!(name);
            members.insert(name.to_owned(), member);
        }
        meshes.push(json!({ "meshId": id, "slug": slug, "members": members }));
    }
    meshes
}

/// What a scenario's process says, line by line.
enum Said {
    Out(String),
    Err(String),
    Closed,
}

/// Prints what the scenario says and does what it asks of the broker; true if it came to an end in
/// time.
fn attend(child: &mut Child, broker: &mut Broker, verbs: &mut Option<Verbs>) -> bool {
    let (sender, lines) = channel();
    let stdin = child.stdin.take().expect("stdin must be a pipe");
    listen(
        child.stdout.take().expect("stdout must be a pipe"),
        sender.clone(),
        Said::Out,
    );
    listen(
        child.stderr.take().expect("stderr must be a pipe"),
        sender,
        Said::Err,
    );
    converse(&lines, stdin, |verb| obey(verb, broker, verbs))
}

fn listen(pipe: impl Read + Send + 'static, sender: Sender<Said>, wrap: fn(String) -> Said) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(wrap(line)).is_err() {
                return;
            }
        }
        let _nobody_listens = sender.send(Said::Closed);
    });
}

fn converse(
    lines: &Receiver<Said>,
    mut stdin: ChildStdin,
    mut obey: impl FnMut(&str) -> String,
) -> bool {
    let silence = Duration::from_secs(if long() { 300 } else { 150 });
    let mut open = 2;
    while open > 0 {
        match lines.recv_timeout(silence) {
            Ok(Said::Out(line)) => match line.strip_prefix('@') {
                Some(verb) => {
                    let answer = obey(verb);
                    let _gone = writeln!(stdin, "{answer}");
                }
                None => println!("  {line}"),
            },
            Ok(Said::Err(line)) => println!("  {line}"),
            Ok(Said::Closed) => open -= 1,
            Err(RecvTimeoutError::Timeout) => {
                println!("  nothing for {silence:?}");
                return false;
            }
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
    true
}

fn obey(verb: &str, broker: &mut Broker, verbs: &mut Option<Verbs>) -> String {
    match verb {
        "kill" => broker.kill(),
        "start" => broker.start_again(),
        "term" => return broker.terminate().to_string(),
        "rss" => return broker.resident_kib().to_string(),
        other => {
            let verbs = verbs.as_mut();
            let more = verbs.unwrap_or_else(|| panic!("a scenario asked for {other}"));
            return more(other, broker);
        }
    }
    "ok".to_owned()
}

//! What a scenario plays on: a broker, its meshes, and the sessions; and how it tells what it saw.

use std::collections::BTreeMap;
use std::io::{self, Stderr, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use holdfast::client::Settings;

use crate::broker::{Broker, BrokerError, asked};
use crate::cli::Common;
use crate::fleet::{Fleet, FleetError, Tally};
use crate::floor::insert::InsertError;
use crate::floor::{FloorError, FloorServer, Kind};
use crate::machine::process::ProcessError;
use crate::machine::stalls::Stalls;
use crate::machine::{limits, process};
use crate::report::compare::CompareError;
use crate::report::line::LineError;
use crate::report::progress::Progress;
use crate::report::{Check, Figure, Header, Report, Series, Unit, compare, line, table};
use crate::town::{Town, TownError};

mod cpu;
mod setup;

pub use self::cpu::Cpu;
pub use self::setup::by_hand;
use self::setup::{address, admitted, launch, reachable};

/// Sockets that are left for everything but sessions.
const SPARE: u64 = 200;

/// Sessions of a warm-up, and its rounds.
const WARM_UP: (usize, usize) = (300, 10);

/// How long the broker's disk may take to write what it was given.
const DISK_PATIENCE: Duration = Duration::from_secs(120);

/// How late the machine woke a thread that had nothing to do: what came late then was not the
/// broker's fault.
const STALL: &str = "longest stall of the machine";

/// Width of tables where the terminal's is not known.
const WIDTH: usize = 100;

/// A run that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Meshes and members.
    #[error(transparent)]
    Town(#[from] TownError),
    /// The sessions.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The floors.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The floor of commits.
    #[error(transparent)]
    Insert(#[from] InsertError),
    /// The broker's process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The file of `--json`.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The file of `--compare`.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// The machine.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Nothing is made for this.
    #[error("{0}")]
    Unfit(String),
}

/// A broker under load, and what was found so far.
pub struct Stage {
    /// What the command line said.
    pub common: Common,
    /// Our broker; `None` if it is somebody else's.
    pub broker: Option<Broker>,
    /// Who there is.
    pub town: Town,
    /// How many sessions.
    pub sessions: usize,
    progress: Progress<Stderr>,
    start: Instant,
    stalls: Stalls,
    report: Report,
}

/// What a scenario wants, before the command line has its say.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub scenario: &'static str,
    /// Sessions with a socket at a time, if nothing is said.
    pub sessions: usize,
    /// Meshes, if nothing is said.
    pub meshes: usize,
    /// Members of each.
    pub members: usize,
    /// Options of the broker.
    pub flags: Vec<String>,
    /// Options of its own, for the header.
    pub options: Vec<(&'static str, String)>,
    /// Whether the sessions need sockets all at once.
    pub live: bool,
}

impl Stage {
    /// Starts a broker, or finds one, and makes everybody known to it.
    ///
    /// # Errors
    /// Too little of anything: said before any load is made.
    pub fn set(common: &Common, wanted: &Wanted) -> Result<Self, StageError> {
        let files = limits::raise_open_files()?;
        let sessions = common.sessions.unwrap_or(wanted.sessions);
        let meshes = common.meshes.unwrap_or(wanted.meshes).max(1);
        if wanted.live && sessions as u64 + SPARE > files {
            let room = files.saturating_sub(SPARE);
            return Err(StageError::Unfit(format!(
                "{sessions} sessions need {} open files here and in the broker, and there are {files}: \
                 give at most --sessions {room}, or raise the limit (ulimit -Hn; fs.nr_open)",
                sessions as u64 + SPARE
            )));
        }
        let mut progress = Progress::stderr(common.quiet);
        let start = Instant::now();
        let seed = common.seed;
        let size = (meshes, wanted.members);
        let (broker, town, version) = match (&common.url, &common.mesh_file) {
            (Some(url), Some(file)) => {
                reachable(url)?;
                let town = Town::load(file, seed, size)?;
                admitted(url, &town, wanted.members)?;
                (None, town, url.clone())
            }
            _ => {
                let broker = Broker::start(launch(common, wanted)?)?;
                progress.begin(start.elapsed(), "meshes", Some(meshes as u64));
                let town = Town::provision(&broker.db(), seed, size, |made| {
                    progress.update(start.elapsed(), made as u64);
                })?;
                progress.end(start.elapsed());
                (Some(broker), town, env!("CARGO_PKG_VERSION").to_owned())
            }
        };
        let mut options: BTreeMap<String, String> = wanted
            .options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        options.insert("sessions".into(), sessions.to_string());
        options.insert("meshes".into(), meshes.to_string());
        options.insert("seed".into(), seed.to_string());
        options.insert("threads".into(), common.threads.to_string());
        if !common.with.is_empty() {
            options.insert("with".into(), common.with.join(" "));
        }
        Ok(Self {
            common: common.clone(),
            broker,
            town,
            sessions,
            progress,
            start,
            stalls: Stalls::watch()?,
            report: Report {
                header: Header {
                    scenario: wanted.scenario.to_owned(),
                    options,
                    machine: limits::header(),
                    broker: version,
                },
                figures: Vec::new(),
                series: Vec::new(),
                checks: Vec::new(),
            },
        })
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        match (&self.broker, &self.common.url) {
            (Some(broker), _) => broker.url(),
            (None, url) => url.clone().unwrap_or_default(),
        }
    }

    /// The broker's process; `None` if it is not known.
    pub fn pid(&self) -> Option<u32> {
        self.broker.as_ref().map(Broker::pid).or(self.common.pid)
    }

    /// Our broker.
    ///
    /// # Errors
    /// It is somebody else's.
    pub fn own(&mut self) -> Result<&mut Broker, StageError> {
        let foreign = || {
            StageError::Unfit(
                "this scenario stops and starts the broker: it cannot use --url".into(),
            )
        };
        self.broker.as_mut().ok_or_else(foreign)
    }

    /// Launched sessions of these numbers, none of them connected yet.
    ///
    /// # Errors
    /// The address is none, or there is no mesh.
    pub fn people(
        &self,
        settings: Settings,
        who: impl IntoIterator<Item = usize>,
    ) -> Result<Fleet, StageError> {
        let mut fleet = Fleet::new(&self.url(), settings)?;
        for n in who {
            let nobody = || StageError::Unfit("there is no mesh".to_owned());
            fleet.add(self.town.launched(n).ok_or_else(nobody)?);
        }
        Ok(fleet)
    }

    /// All sessions, attached; from now on nobody comes or goes unnoticed.
    ///
    /// # Errors
    /// Some do not get in.
    pub fn everybody(&mut self, settings: Settings) -> Result<Fleet, StageError> {
        let mut fleet = self.people(settings, 0..self.sessions)?;
        self.attach(&mut fleet, "sessions", 0..self.sessions)?;
        self.settle(&mut fleet)?;
        fleet.settled = true;
        Ok(fleet)
    }

    /// The barest server of that kind, unless nobody wants it.
    ///
    /// # Errors
    /// It does not start.
    pub fn floor(&self, kind: Kind, ping: Duration) -> Result<Option<FloorServer>, StageError> {
        if self.common.no_floor {
            return Ok(None);
        }
        Ok(Some(FloorServer::start(kind, ping)?))
    }

    /// A phase begins.
    pub fn begin(&mut self, name: &str, total: Option<usize>) {
        let total = total.map(|total| total as u64);
        self.progress.begin(self.start.elapsed(), name, total);
    }

    /// So much of it is done.
    pub fn update(&mut self, done: usize) {
        self.progress.update(self.start.elapsed(), done as u64);
    }

    /// It is over.
    pub fn end(&mut self) {
        self.progress.end(self.start.elapsed());
    }

    /// A figure was found.
    pub fn figure(&mut self, figure: Figure) {
        self.report.figures.push(figure);
    }

    /// Figures were found.
    pub fn figures(&mut self, figures: Vec<Figure>) {
        self.report.figures.extend(figures);
    }

    /// A curve was found.
    pub fn series(&mut self, series: Series) {
        self.report.series.push(series);
    }

    /// What must not have happened.
    pub fn checks(&mut self, tally: &Tally) {
        for check in tally.checks() {
            Check::add(&mut self.report.checks, check);
        }
    }

    /// Connects these sessions of a fleet, showing progress.
    ///
    /// # Errors
    /// Some do not get in.
    pub fn attach(
        &mut self,
        fleet: &mut Fleet,
        what: &str,
        peers: Range<usize>,
    ) -> Result<(), StageError> {
        self.begin(what, Some(peers.len()));
        let (progress, start) = (&mut self.progress, self.start);
        fleet.attach(peers, crate::fleet::WINDOW, |done| {
            progress.update(start.elapsed(), done as u64);
        })?;
        self.end();
        Ok(())
    }

    /// Lets a few sessions come and leave for good, again and again: what a broker pays once (pages
    /// of its program, caches of its database, room to work in) is no session's cost. Gives how
    /// many sessions it has had at once.
    ///
    /// # Errors
    /// Some do not get in.
    pub fn warm_up(&mut self) -> Result<usize, StageError> {
        let (count, rounds) = (WARM_UP.0.min(self.sessions), WARM_UP.1);
        for round in 0..rounds {
            let mut fleet = self.people(by_hand(), 0..count)?;
            let name = format!("warm-up {} of {rounds}", round + 1);
            self.attach(&mut fleet, &name, 0..count)?;
            (0..count).for_each(|peer| fleet.leave(peer));
            self.settle(&mut fleet)?;
        }
        Ok(count)
    }

    /// Waits until the broker has written everything, and all have answered.
    ///
    /// # Errors
    /// The disk is too slow.
    pub fn settle(&mut self, fleet: &mut Fleet) -> Result<(), StageError> {
        let began = Instant::now();
        fleet.run(Duration::from_millis(300))?;
        while self
            .metric("holdfast_store_queue")?
            .is_some_and(|queued| queued > 0.0)
        {
            if began.elapsed() > DISK_PATIENCE {
                return Err(StageError::Unfit(
                    "the broker's disk does not keep up".into(),
                ));
            }
            fleet.run(Duration::from_millis(100))?;
        }
        // Joins are told when they are durable, and confirmed within a second or so.
        fleet.run(Duration::from_millis(1500))?;
        Ok(())
    }

    /// A metric of our broker, summed over its labels; `None` of another's.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn metric(&self, name: &str) -> Result<Option<f64>, StageError> {
        if self.broker.is_none() {
            return Ok(None);
        }
        let answer = asked(address(&self.url())?, "/metrics")?;
        let values = answer.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest
                .starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next())??;
            value.parse::<f64>().ok()
        });
        Ok(values.reduce(|sum, value| sum + value))
    }

    /// CPU of the broker in nanoseconds: of its loops, and in all.
    ///
    /// # Errors
    /// The process is not there.
    pub fn cpu(&self) -> Result<Cpu, StageError> {
        self.pid().map_or(Ok(Cpu::default()), Cpu::of)
    }

    /// Memory of the broker in bytes, if its process is known.
    ///
    /// # Errors
    /// The process is not there.
    pub fn memory(&self) -> Result<Option<u64>, StageError> {
        let read = |pid| Ok(process::memory(pid)?.resident);
        self.pid().map(read).transpose()
    }

    /// Prints what was found; whether nothing happened that must not.
    ///
    /// # Errors
    /// The files of the command line.
    pub fn finish(mut self) -> Result<bool, StageError> {
        self.end();
        let stall = self.stalls.longest().as_nanos() as f64;
        self.figure(Figure::new(STALL, stall, Unit::Nanos));
        let mut out = io::stdout().lock();
        match &self.common.json {
            Some(path) if path == std::path::Path::new("-") => {
                writeln!(out, "{}", line::line(&self.report)?)?;
            }
            Some(path) => {
                line::append(path, &self.report)?;
                write!(out, "{}", table::table(&self.report, WIDTH))?;
            }
            None => write!(out, "{}", table::table(&self.report, WIDTH))?,
        }
        if let Some(path) = &self.common.compare {
            write!(
                out,
                "\n{}",
                compare::with_file(path, &self.report)?.table(WIDTH)
            )?;
        }
        Ok(self.report.failures().next().is_none())
    }
}

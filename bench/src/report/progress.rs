//! What a run is doing, on standard error while it does it.
//!
//! On a terminal one line is written over and over, at most four times a second; elsewhere a line
//! is added at most every five seconds. The end of a phase is always told. There is no clock in
//! here: every call says what time it is, counted from anywhere.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use super::Unit;
use super::grid::printable;
use super::human::human;

/// The least time between two states of the line on a terminal.
const TERMINAL_EVERY: Duration = Duration::from_millis(250);
/// The least time between two lines elsewhere.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// A longer line would wrap on a usual terminal, and could not be written over.
const COLUMNS: usize = 79;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line that is written over.
    Terminal,
    /// A line now and then.
    Log,
    /// Not at all.
    Silent,
}

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress<W: Write> {
    out: W,
    style: Style,
    phase: Option<Phase>,
    /// When something was last shown.
    shown: Option<Duration>,
    /// Whether the cursor stands behind a line that is not ended.
    open: bool,
}

#[derive(Debug)]
struct Phase {
    name: String,
    total: Option<u64>,
    done: u64,
    begun: Duration,
}

impl Progress<io::Stderr> {
    /// Progress on standard error, or none if `silent`.
    pub fn stderr(silent: bool) -> Self {
        let out = io::stderr();
        let style = match (silent, out.is_terminal()) {
            (true, _) => Style::Silent,
            (false, true) => Style::Terminal,
            (false, false) => Style::Log,
        };
        Self::new(out, style)
    }
}

impl<W: Write> Progress<W> {
    /// Progress on `out`.
    pub fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            phase: None,
            shown: None,
            open: false,
        }
    }

    /// Begins a phase of `total` steps, if that is known. A phase that still goes on is ended.
    pub fn begin(&mut self, now: Duration, name: &str, total: Option<u64>) {
        self.end(now);
        self.phase = Some(Phase {
            name: printable(name),
            total,
            done: 0,
            begun: now,
        });
        self.show_if_due(now);
    }

    /// Says that `done` steps of the phase are done in all.
    pub fn update(&mut self, now: Duration, done: u64) {
        if let Some(phase) = &mut self.phase {
            phase.done = done;
            self.show_if_due(now);
        }
    }

    /// Ends the phase, and shows how it ended.
    pub fn end(&mut self, now: Duration) {
        if let Some(phase) = self.phase.take() {
            self.show(now, &phase);
            self.close_line();
        }
    }

    fn show_if_due(&mut self, now: Duration) {
        let every = match self.style {
            Style::Terminal => TERMINAL_EVERY,
            Style::Log => LOG_EVERY,
            Style::Silent => return,
        };
        if self
            .shown
            .is_some_and(|shown| now.saturating_sub(shown) < every)
        {
            return;
        }
        if let Some(phase) = self.phase.take() {
            self.show(now, &phase);
            self.phase = Some(phase);
        }
    }

    fn show(&mut self, now: Duration, phase: &Phase) {
        let text = phase.text(now);
        match self.style {
            Style::Terminal => {
                let text: String = text.chars().take(COLUMNS).collect();
                self.write(&format!("\r{text}\x1b[K"));
                self.open = true;
            }
            Style::Log => self.write(&format!("{text}\n")),
            Style::Silent => {}
        }
        self.shown = Some(now);
    }

    fn close_line(&mut self) {
        if self.open {
            self.write("\n");
            self.open = false;
        }
    }

    fn write(&mut self, text: &str) {
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        if written.is_err() {
            // Nobody sees the progress any more, and there is nowhere to say so; the run goes on.
            self.style = Style::Silent;
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    /// What is printed next, such as why the run stopped, begins on a line of its own.
    fn drop(&mut self) {
        self.close_line();
    }
}

impl Phase {
    fn text(&self, now: Duration) -> String {
        let elapsed = now.saturating_sub(self.begun);
        let done = match self.total {
            Some(total) => {
                // A phase of nothing is done when it begins.
                let percent = if total == 0 {
                    100.0
                } else {
                    100.0 * number(self.done) / number(total)
                };
                format!("{}/{total} ({percent:.0} %)", self.done)
            }
            None => self.done.to_string(),
        };
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 {
            number(self.done) / seconds
        } else {
            0.0
        };
        let rate = human(rate, Unit::PerSecond);
        format!("{}: {done}  {rate}  {seconds:.1} s", self.name)
    }
}

/// Exact up to 2^53, which no phase reaches.
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs `act` on progress of `style` that began at 10 s, and gives what was written.
    fn written(style: Style, act: impl FnOnce(&mut Progress<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, style);
        act(&mut progress);
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_sees_one_line_four_times_a_second() {
        let text = written(Style::Terminal, |progress| {
            progress.begin(ms(10_000), "connect", Some(2_000));
            for step in 1..=1_000 {
                progress.update(ms(10_000 + step), step);
            }
            progress.update(ms(11_001), 2_000);
            progress.end(ms(11_100));
        });
        let states: Vec<_> = text.trim_end().split('\r').skip(1).collect();
        assert_eq!(states.len(), 6, "{states:?}");
        assert_eq!(states[0], "connect: 0/2000 (0 %)  0 /s  0.0 s\x1b[K");
        assert_eq!(states[2], "connect: 500/2000 (25 %)  1.00 k/s  0.5 s\x1b[K");
        assert_eq!(
            states[5],
            "connect: 2000/2000 (100 %)  1.82 k/s  1.1 s\x1b[K"
        );
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_log_gets_a_line_every_five_seconds_and_at_each_end() {
        let text = written(Style::Log, |progress| {
            progress.begin(ms(0), "idle", None);
            for second in 1..=11 {
                progress.update(ms(second * 1_000), second);
            }
            progress.begin(ms(12_000), "cut", Some(0));
            progress.end(ms(12_500));
        });
        let expected = "idle: 0  0 /s  0.0 s\nidle: 5  1 /s  5.0 s\nidle: 10  1 /s  10.0 s\n\
                        idle: 11  0.917 /s  12.0 s\ncut: 0/0 (100 %)  0 /s  0.5 s\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn silent_is_silent() {
        let text = written(Style::Silent, |progress| {
            progress.begin(ms(0), "idle", None);
            progress.update(ms(60_000), 5);
            progress.end(ms(70_000));
        });
        assert_eq!(text, "");
    }

    #[test]
    fn a_run_that_stops_leaves_the_cursor_on_a_new_line() {
        let text = written(Style::Terminal, |progress| {
            progress.begin(ms(0), "idle", None);
        });
        assert!(text.ends_with("\x1b[K\n"), "{text:?}");
    }

    #[test]
    fn a_long_name_does_not_wrap_the_line() {
        let text = written(Style::Terminal, |progress| {
            progress.begin(ms(0), &"é".repeat(200), None);
        });
        assert_eq!(text, format!("\r{}\x1b[K\n", "é".repeat(COLUMNS)));
    }

    #[test]
    fn updates_without_a_phase_and_time_that_steps_back_do_no_harm() {
        let text = written(Style::Log, |progress| {
            progress.update(ms(5), 1);
            progress.end(ms(6));
            progress.begin(ms(100), "idle", None);
            progress.update(ms(50), 1);
        });
        assert_eq!(text, "idle: 0  0 /s  0.0 s\n");
    }

    #[test]
    fn an_output_that_is_gone_silences_it() {
        struct Gone(u32);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut progress = Progress::new(Gone(0), Style::Log);
        progress.begin(ms(0), "idle", None);
        progress.update(ms(9_000), 1);
        progress.end(ms(10_000));
        assert_eq!(progress.out.0, 1);
    }
}

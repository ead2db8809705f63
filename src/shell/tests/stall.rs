//! A broker that was stopped and goes on: nobody is judged by what it could not read meanwhile.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Set in the process that is to be stopped.
const CHILD: &str = "HOLDFAST_TEST_STALL";

/// How long a request may take; the stop is longer by more than what counts as a stall.
const PATIENCE: Millis = Millis(700);
const STOP: Duration = Duration::from_millis(1700);

/// Another process of this test's program, which runs [`broker_to_be_stopped`].
struct Stoppable(Child);

impl Stoppable {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn broker_to_be_stopped() {
    let Ok(driver) = std::env::var(CHILD) else {
        return;
    };
    let broker = Broker::start_with(&driver, 1, |config| config.core.hello_timeout = PATIENCE);
    println!("\nlistening on {}", broker.address);
    // Until the other process ends us.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn stoppable(driver: &str) -> (Stoppable, SocketAddr) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "shell::tests::stall::broker_to_be_stopped",
        ])
        .env(CHILD, driver)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Stoppable(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let address = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
    (child, address.expect("the broker must say where it is"))
}

#[test]
fn what_came_during_a_stop_counts_before_the_clock_does() {
    for driver in DRIVERS {
        let (broker, address) = stoppable(driver);
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                stream
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        broker.signal(Signal::STOP);
        for mut client in &clients {
            let request = b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n";
            client.write_all(request).unwrap();
        }
        thread::sleep(STOP);
        broker.signal(Signal::CONT);
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(status(&answer), "200", "{driver}");
        }
    }
}

//! Everything at once in one terminal: each part in a process of its own, as it would run in
//! earnest, until the books balance. With `--crash` every part dies once in its worst moment and is
//! started again; that is all that a real supervisor would have to do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::books::Ledgers;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{kafka, shop, view};

/// The parts: arguments, and where each dies with `--crash`.
const PARTS: [(&[&str], &str); 7] = [
    (&["relay", "shop"], "published-not-marked"),
    (&["stock"], "offset-not-committed:3"),
    (&["payment"], "effect-not-committed:3"),
    (&["mail"], "effect-not-committed:3"),
    (&["relay", "stock"], "published-not-marked"),
    (&["relay", "payment"], "published-not-marked"),
    (
        &["view", "--snapshot-every", "20"],
        "snapshot-not-committed:2",
    ),
];

/// How the demo is run.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// How many orders
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    orders: u32,
    /// Let every part die once
    #[arg(long)]
    crash: bool,
    /// Give up when the books do not balance after so many seconds
    #[arg(long, default_value_t = 120)]
    seconds_max: u64,
}

/// What a part has to say: a line, or (`None`) that it has ended.
type News = (usize, Option<String>);

/// Runs all parts until every order is everywhere.
pub fn run(settings: &Settings, run: &Run) -> Result<(), Failure> {
    kafka::ensure_topic(settings, &settings.topic)?;
    let ledgers = Ledgers::open(settings)?;
    let deadline = Instant::now() + Duration::from_secs(run.seconds_max);
    let (sender, news) = channel();
    let mut parts = Parts::start(settings, run.crash, sender)?;
    shop::place(settings, run.orders, 3)?;
    while !ledgers.books()?.balance() {
        parts.attend(&news, deadline)?;
    }
    drop(parts);
    println!("{}", ledgers.books()?);
    view::rebuild(settings)
}

/// The processes of the parts; none of them outlives this.
struct Parts<'a> {
    settings: &'a Settings,
    sender: Sender<News>,
    children: Vec<Child>,
    /// Parts that are still to die.
    crashes_left: Vec<usize>,
}

impl<'a> Parts<'a> {
    fn start(settings: &'a Settings, crash: bool, sender: Sender<News>) -> Result<Self, Failure> {
        let mut parts = Self {
            settings,
            sender,
            children: Vec::new(),
            crashes_left: if crash {
                (0..PARTS.len()).collect()
            } else {
                Vec::new()
            },
        };
        for index in 0..PARTS.len() {
            let child = parts.spawn(index, crash)?;
            parts.children.push(child);
        }
        Ok(parts)
    }

    /// Shows the next line of any part, or starts one again that has died as it should.
    fn attend(&mut self, news: &Receiver<News>, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((index, line)) = news.recv_timeout(left) else {
            return Err(Failure::new("the books do not balance in time"));
        };
        let name = PARTS[index].0.join(" ");
        let Some(line) = line else {
            let status = self.children[index].wait();
            // An exit code means that it ended by itself, and did not die where it was told to.
            let died = status.as_ref().is_ok_and(|status| status.code().is_none());
            if !died || !self.crashes_left.contains(&index) {
                return Err(Failure::new(format!("{name} has ended: {status:?}")));
            }
            self.crashes_left.retain(|other| *other != index);
            println!("{name} died at {}, and is started again", PARTS[index].1);
            self.children[index] = self.spawn(index, false)?;
            return Ok(());
        };
        println!("{line}");
        Ok(())
    }

    fn spawn(&self, index: usize, crash: bool) -> Result<Child, Failure> {
        let refuse = |error| Failure::new(format!("cannot start {:?}: {error}", PARTS[index].0));
        let mut command = Command::new(std::env::current_exe().map_err(refuse)?);
        command
            .args(PARTS[index].0)
            .args(["--bootstrap", &self.settings.bootstrap])
            .args(["--topic", &self.settings.topic])
            .arg("--dir")
            .arg(&self.settings.dir)
            .arg("--end-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if crash {
            command.args(["--crash-at", PARTS[index].1]);
        }
        let mut child = command.spawn().map_err(refuse)?;
        let stdout = child.stdout.take().expect("it is piped");
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for news in lines.map(Some).chain([None]) {
                // The demo may have ended.
                let _ = sender.send((index, news));
            }
        });
        Ok(child)
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

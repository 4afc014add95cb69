//! `balancer top`: a running instance, watched.
//!
//! | module | what it does |
//! |---|---|
//! | [`ask`] | questions to the admin socket, on a thread of their own |
//! | [`model`], [`clean`] | what is answered; its text without what terminals act on |
//! | [`state`], [`key`] | keys and answers in, what is looked at out (pure) |
//! | [`sheet`], [`words`], `units` | lists, texts and numbers as people read them (pure) |
//! | [`draw`], [`once`] | a frame of it, or plain text (pure) |
//! | `live`, [`terminal`] | the loop around them; the terminal, taken and given back |

pub mod ask;
pub mod clean;
pub mod draw;
pub mod key;
mod live;
pub mod model;
pub mod once;
pub mod sheet;
pub mod state;
pub mod terminal;
mod units;
pub mod words;

use std::io::{IsTerminal, stdin, stdout};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::terminal::size;

use crate::cli::{ClientArgs, Stop, parse_duration};
use ask::Instance;
use draw::look::Look;
use state::Wants;

/// What `top` is told.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Which instance.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Ask it so often
    #[arg(long, value_name = "T", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print figures and servers once, as text, and end
    #[arg(long)]
    pub once: bool,
    /// With --once: print JSON, all that the instance says
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Often enough for any eye, and without asking all the time.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("is out of range; write one from 100ms to 1h".into())
    }
}

/// Does what `args` say: the text to print, if there is one.
///
/// # Errors
/// Nobody answers, or there is no terminal for a live view.
pub fn run(args: &TopArgs, instance: &Instance) -> Result<String, Stop> {
    if args.json {
        return Ok(instance.status_text()?);
    }
    if args.once {
        let answer = instance.ask(&Wants::default())?;
        return Ok(once::text(&answer, width_of_output()));
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        let which = if stdout().is_terminal() { "standard input" } else { "standard output" };
        return Err(Stop::Usage(format!("{which} is not a terminal; write balancer top --once for a text")));
    }
    if variable("TERM").is_none_or(|term| term == "dumb") {
        return Err(Stop::Usage(
            "TERM names no terminal to draw on; write balancer top --once for a text".into(),
        ));
    }
    live::show(instance, args.interval, Look::of(variable))?;
    Ok(String::new())
}

/// On a terminal lines are cut rather than broken; in a file or a pipe they are whole, unless `COLUMNS` says otherwise.
fn width_of_output() -> Option<usize> {
    let told = variable("COLUMNS").and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let there_is = || stdout().is_terminal().then(|| size().map_or(80, |(columns, _)| columns.into()));
    told.or_else(there_is)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

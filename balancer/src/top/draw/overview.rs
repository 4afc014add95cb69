//! The overview: charts of the last minutes, figures, the servers that need a look first, the last decisions.

use ratatui::style::Style;

use super::{Canvas, charts, columns};
use crate::top::model::{Server, Status};
use crate::top::sheet::{natural, tone_of_state};
use crate::top::{units, words};

pub(super) fn draw(canvas: &mut Canvas<'_>, status: &Status) {
    let height = canvas.area.height;
    let y = charts::draw(canvas, status, 0);
    let y = figures(canvas, status, y);
    // A title and a blank line for each of the two lists; servers first, decisions have what is left.
    let left = height.saturating_sub(y + 2);
    let decisions = status.decisions.len().min(usize::from(left / 3)) as u16;
    let spent = if decisions > 0 { decisions + 2 } else { 0 };
    let y = servers(canvas, status, y + 1, left.saturating_sub(spent));
    let left = height.saturating_sub(y + 2);
    if left > 0 {
        last_decisions(canvas, status, y + 1, left);
    }
}

fn figures(canvas: &mut Canvas<'_>, status: &Status, y: u16) -> u16 {
    let clients = &status.clients;
    let in_flight: u64 = status.servers.iter().map(|server| server.in_flight).sum();
    let mut now = vec![
        ("clients", format!("{} of {}", units::count(clients.now), units::count(clients.limit))),
        ("in flight", units::count(in_flight)),
        ("waiting", units::count(status.waiting)),
    ];
    if let Some(fast) = status.fast_path {
        let share =
            fast.share.map_or_else(String::new, |share| format!(", {} of new", units::percent(share)));
        now.push(("fast", units::count(fast.connections) + &share));
    }
    labelled(canvas, y, "now", &now);
    let x = canvas.put(1, y + 1, u16::MAX, "answers", Style::new());
    let answers = words::answers(&status.responses);
    canvas.put(x.max(INDENT), y + 1, u16::MAX, &answers, Style::new());
    y + 2
}

/// Where figures begin that stand in a row.
const INDENT: u16 = 10;

fn labelled(canvas: &mut Canvas<'_>, y: u16, title: &str, figures: &[(&str, String)]) {
    canvas.put(1, y, u16::MAX, title, Style::new());
    let mut x = INDENT;
    for (label, figure) in figures {
        // A figure that is cut would be another one.
        if x + columns(label) + 1 + columns(figure) >= canvas.area.width {
            return;
        }
        x = canvas.put(x, y, u16::MAX, label, canvas.look.faint()) + 1;
        x = canvas.put(x, y, u16::MAX, figure, canvas.look.title()) + 2;
    }
}

/// A column of the servers in short: its title, where it ends (names: begins), what stands in it.
type Figure = (&'static str, u16, fn(&Server) -> String);

const FIGURES: [Figure; 7] = [
    ("for", 40, |server| units::span(server.seconds_in_state)),
    ("req/s", 47, |server| units::count(server.sessions_per_second)),
    ("in flight", 58, |server| units::count(server.in_flight)),
    ("fast", 64, |server| units::count(server.fast)),
    ("stuck", 71, |server| server.entries.map_or_else(|| "-".to_owned(), units::count)),
    ("mean", 79, |server| units::millis(server.millis.total)),
    ("failed", 88, |server| units::count(server.failures.sum())),
];

const STATE: u16 = 20;

/// Names have so much more than they need at least, where all columns have room.
fn more_for_names(canvas: &Canvas<'_>, status: &Status) -> u16 {
    let longest = status.servers.iter().map(|server| columns(server.name.as_str())).max().unwrap_or(0);
    let all = FIGURES[FIGURES.len() - 1].1 + 1;
    longest.saturating_sub(STATE - 4).min(canvas.area.width.saturating_sub(all))
}

fn servers(canvas: &mut Canvas<'_>, status: &Status, y: u16, room: u16) -> u16 {
    let more = more_for_names(canvas, status);
    let begin = STATE + more;
    canvas.put(1, y, u16::MAX, "servers", canvas.look.title());
    canvas.put(begin, y, u16::MAX, "state", canvas.look.title());
    let moved = FIGURES.iter().map(|(title, end, figure)| (*title, end + more, *figure));
    let shown: Vec<Figure> = moved.filter(|(_, end, _)| *end < canvas.area.width).collect();
    for (title, end, _) in &shown {
        canvas.put_right(*end, y, title, canvas.look.title());
    }
    let mut servers: Vec<&Server> = status.servers.iter().collect();
    servers
        .sort_by(|a, b| urgency(a).cmp(&urgency(b)).then_with(|| natural(a.name.as_str(), b.name.as_str())));
    // The last line says how many there are besides.
    let all = servers.len();
    let count = if all > usize::from(room) { usize::from(room.saturating_sub(1)) } else { all };
    let mut y = y + 1;
    for server in &servers[..count] {
        let tone = canvas.look.tone(tone_of_state(server.state.as_str()));
        let state =
            if server.backup { format!("{}, backup", server.state) } else { server.state.to_string() };
        canvas.put(1, y, 1, &canvas.look.state(server.state.as_str()).to_string(), tone);
        canvas.put(3, y, begin - 4, server.name.as_str(), Style::new());
        canvas.put(begin, y, 12, &state, tone);
        for (_, end, figure) in &shown {
            canvas.put_right(*end, y, &figure(server), Style::new());
        }
        y += 1;
    }
    if count < all && room > 0 {
        let up = servers[count..].iter().filter(|server| server.state.as_str() == "up").count();
        let rest = format!("and {} more, {up} of them up: 2 shows all", all - count);
        canvas.put(3, y, u16::MAX, &rest, canvas.look.faint());
        y += 1;
    }
    y
}

/// Those first that somebody has to look after.
fn urgency(server: &Server) -> u8 {
    match server.state.as_str() {
        "down" => 0,
        "maint" => 1,
        "drain" => 2,
        _ => 3,
    }
}

fn last_decisions(canvas: &mut Canvas<'_>, status: &Status, y: u16, room: u16) {
    canvas.put(1, y, u16::MAX, "last decisions", canvas.look.title());
    if status.decisions.is_empty() {
        canvas.put(1, y + 1, u16::MAX, "No request has been answered yet.", canvas.look.faint());
    }
    let last = status.decisions.iter().rev().take(room.into());
    let server_of = |server: &Option<_>| server.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let names = last.clone().map(|decision| columns(&server_of(&decision.server))).max().unwrap_or(0).min(18);
    for (y, decision) in (y + 1..).zip(last) {
        let status = decision.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        canvas.put(1, y, 12, decision.time_of_day(), canvas.look.faint());
        canvas.put(15, y, 3, &status, Style::new());
        canvas.put(20, y, names, &server_of(&decision.server), Style::new());
        canvas.put(20 + names + 2, y, u16::MAX, decision.persist.as_str(), Style::new());
    }
}

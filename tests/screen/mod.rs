//! What `balancer top` draws, kept as text: `tests/screen/golden/NAME.txt`. To write them anew, look at every one and
//! commit: `BALANCER_WRITE_SCREENS=1 cargo test -p balancer --test top screen`.

pub mod said;

use std::fs;
use std::path::Path;

use balancer::top::draw::draw;
use balancer::top::draw::look::Look;
use balancer::top::key::Key;
use balancer::top::model::Answer;
use balancer::top::state::State;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::json;

/// As most terminals are.
const MODERN: Look = Look { has_symbols: true, has_colours: true };

/// Both sizes of the pictures.
const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

fn frame(state: &mut State, (columns, rows): (u16, u16), look: Look) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal in memory");
    terminal.draw(|frame| draw(frame, state, look)).expect("drawn");
    terminal.backend().buffer().clone()
}

/// The lines, without spaces at their ends.
fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in 0..area.height {
        let mut line = String::new();
        let mut covered = 0;
        for x in 0..area.width {
            let symbol = buffer[(x, y)].symbol();
            // A wide character covers the cell behind it.
            if covered == 0 {
                line += symbol;
            }
            covered = if covered > 0 { covered - 1 } else { vt100_width(symbol).saturating_sub(1) };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn vt100_width(symbol: &str) -> usize {
    ratatui::text::Span::raw(symbol).width()
}

fn golden(name: &str, screen: &str) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/screen/golden").join(format!("{name}.txt"));
    if std::env::var_os("BALANCER_WRITE_SCREENS").is_some() {
        fs::write(&path, screen).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == screen, "{name} is drawn as\n{screen}\nand not any more as\n{kept}");
}

/// Presses keys, written as they are; `>` is Tab, `!` Enter, `v` Down, `^` Escape.
fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        state.press(match key {
            '>' => Key::Tab,
            '!' => Key::Enter,
            'v' => Key::Down,
            '^' => Key::Escape,
            key => Key::Char(key),
        });
    }
}

fn pictures(name: &str, answer: &Answer, keys: &str) {
    for (columns, rows) in SIZES {
        let mut state = State::new(answer.clone());
        press(&mut state, keys);
        let screen = text(&frame(&mut state, (columns, rows), MODERN));
        golden(&format!("{name}-{columns}x{rows}"), &screen);
    }
}

#[test]
fn screen_of_every_page() {
    let few = said::few_servers();
    for (name, keys) in [
        ("overview", ""),
        ("servers", "2"),
        ("tables", "3"),
        ("flows", "4"),
        ("decisions", "5"),
        ("help", "?"),
    ] {
        pictures(name, &few, keys);
    }
    pictures("server", &few, "2v!");
    pictures("decision", &few, "5vv!");
}

#[test]
fn screen_of_many_servers() {
    let many = said::many_servers();
    pictures("many-overview", &many, "");
    pictures("many-servers", &many, "2ssssss");
    pictures("many-filtered", &many, "2/down!");
    pictures("many-typing", &many, "2/s1");
    pictures("many-scrolled", &many, &format!("2{}", "v".repeat(30)));
}

#[test]
fn screen_of_a_service_that_has_just_been_started() {
    let new = said::nothing_yet();
    for (name, keys) in
        [("new-overview", ""), ("new-tables", "3"), ("new-flows", "4"), ("new-decisions", "5")]
    {
        let mut state = State::new(new.clone());
        press(&mut state, keys);
        golden(name, &text(&frame(&mut state, (80, 24), MODERN)));
    }
}

#[test]
fn screen_in_ascii() {
    let ascii = Look { has_symbols: false, has_colours: true };
    for (name, answer, keys) in [
        ("ascii-overview", said::few_servers(), ""),
        ("ascii-servers", said::many_servers(), "2ssssss"),
        ("ascii-hostile", said::hostile(), "5"),
    ] {
        let mut state = State::new(answer);
        press(&mut state, keys);
        let screen = text(&frame(&mut state, (80, 24), ascii));
        assert!(screen.is_ascii(), "{screen}");
        golden(name, &screen);
    }
}

#[test]
fn screen_that_is_too_small_says_so() {
    for (columns, rows) in [(40, 10), (59, 24), (80, 13), (12, 2), (1, 1)] {
        let mut state = State::new(said::few_servers());
        let screen = text(&frame(&mut state, (columns, rows), MODERN));
        assert!(
            screen.starts_with("too small"[..usize::from(columns.min(9)).saturating_sub(1)].trim_end()),
            "{screen}"
        );
        if columns == 40 {
            golden("too-small", &screen);
        }
    }
    let mut state = State::new(said::few_servers());
    golden("smallest", &text(&frame(&mut state, (60, 14), MODERN)));
}

#[test]
fn frozen_stays_as_it_was_and_says_since_when() {
    let mut state = State::new(said::few_servers());
    press(&mut state, "2 ");
    state.answered(said::many_servers());
    let buffer = frame(&mut state, (80, 24), MODERN);
    golden("frozen", &text(&buffer));
    assert!(buffer[(1, 2)].modifier.contains(Modifier::BOLD | Modifier::REVERSED), "the notice is bold");

    // The daemon may go while nobody looks at what it says now.
    state.failed("no balancer named \"shop\" answers at /run/balancer/shop.sock; is it running?");
    golden("frozen-and-gone", &text(&frame(&mut state, (120, 40), MODERN)));
    press(&mut state, " ");
    let screen = text(&frame(&mut state, (80, 24), MODERN));
    assert!(screen.contains("NO ANSWER since 10:11:13 UTC") && screen.contains("40 servers"), "{screen}");
    state.answered(said::few_servers());
    let screen = text(&frame(&mut state, (80, 24), MODERN));
    assert!(!screen.contains("NO ANSWER") && screen.contains(" 4 servers"), "{screen}");
}

#[test]
fn hostile_text_stays_text() {
    for (name, keys) in [
        ("hostile-overview", ""),
        ("hostile-servers", "2"),
        ("hostile-server", "2!"),
        ("hostile-decisions", "5"),
        ("hostile-decision", "5!"),
    ] {
        let mut state = State::new(said::hostile());
        press(&mut state, keys);
        let screen = text(&frame(&mut state, (80, 24), MODERN));
        let is_wrong =
            |c: char| c.is_control() && c != '\n' || matches!(c, '\u{200b}' | '\u{202e}' | '\u{301}');
        assert!(!screen.contains(is_wrong), "{screen:?}");
        golden(name, &screen);
    }
}

#[test]
fn without_colours_states_are_still_told_apart() {
    let plain = Look { has_symbols: true, has_colours: false };
    for keys in ["", "2", "2!", "3", "4", "5", "5!", "?", " "] {
        let mut state = State::new(said::few_servers());
        press(&mut state, keys);
        let buffer = frame(&mut state, (120, 40), plain);
        let coloured =
            buffer.content().iter().find(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, None, "{keys:?}");
        if matches!(keys, "" | "2") {
            let screen = text(&buffer);
            assert!(["up", "drain", "down"].iter().all(|state| screen.contains(state)), "{screen}");
        }
    }
}

#[test]
fn the_row_that_was_gone_to_is_kept_while_others_come_and_go() {
    let chosen = |state: &State| {
        let (sheet, place) = state.sheet().expect("a list");
        (sheet.rows[place].key.clone(), place)
    };
    let mut state = State::new(said::many_servers());
    press(&mut state, "2vvvv");
    assert_eq!(chosen(&state), ("s5".to_owned(), 4));
    let mut fewer = said::many_servers();
    fewer.status.servers.retain(|server| !matches!(server.name.as_str(), "s2" | "s3"));
    state.answered(fewer.clone());
    assert_eq!(chosen(&state), ("s5".to_owned(), 2));
    press(&mut state, "v");
    assert_eq!(chosen(&state), ("s6".to_owned(), 3));
    fewer.status.servers.retain(|server| server.name.as_str() != "s6");
    state.answered(fewer);
    assert_eq!(chosen(&state), ("s7".to_owned(), 3), "who is in its place");
    // Descending by name.
    press(&mut state, "gS");
    assert_eq!(chosen(&state), ("s40".to_owned(), 0));
}

#[test]
fn requests_that_look_alike_hold_nobody_up() {
    let mut answer = said::few_servers();
    let one = answer.status.decisions[0].clone();
    answer.status.decisions = vec![one; 5];
    let mut state = State::new(answer);
    press(&mut state, "5vvv");
    assert_eq!(state.sheet().expect("a list").1, 3);
}

#[test]
fn what_is_not_known_yet_is_asked_for_when_it_is_looked_at() {
    let mut state = State::new(said::few_servers());
    assert!(!state.wants().flows && state.wants().server.is_none());
    press(&mut state, "4");
    assert!(state.wants().flows);
    press(&mut state, "2!");
    assert_eq!(state.wants().server.as_deref(), Some("app-1"));
    press(&mut state, "^");
    assert_eq!(state.wants().server, None);
}

#[test]
fn members_that_later_versions_add_or_leave_out_are_no_errors() {
    for object in
        [json!({}), json!({"servers": [{"name": "s1", "colour": "blue"}], "more": 1, "fast_path": null})]
    {
        let status = serde_json::from_value(object).expect("understood");
        let mut state = State::new(Answer { status, ..Answer::default() });
        for keys in ["", "2", "!", "3", "4", "5"] {
            press(&mut state, keys);
            frame(&mut state, (80, 24), MODERN);
        }
    }
}

/// All that the keyboard has, and the events between.
#[derive(Clone, Debug)]
enum Happening {
    Press(Key),
    Answer(usize),
    Failure,
    Size(u16, u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    let key = prop_oneof![
        prop::sample::select("1234512345q?/sS<> fjkgGhlxd0é".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        any::<char>().prop_map(Key::Char),
        prop::sample::select(vec![
            Key::Up,
            Key::Down,
            Key::Left,
            Key::Right,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Tab,
            Key::BackTab,
            Key::Enter,
            Key::Escape,
            Key::Backspace,
            Key::Interrupt,
            Key::Suspend,
            Key::Redraw,
        ]),
    ];
    prop_oneof![
        8 => key.prop_map(Happening::Press),
        1 => (0..4_usize).prop_map(Happening::Answer),
        1 => Just(Happening::Failure),
        1 => (0..200_u16, 0..60_u16).prop_map(|(columns, rows)| Happening::Size(columns, rows)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(50) })]

    #[test]
    fn no_keys_on_no_size_panic(happenings in prop::collection::vec(happening(), 1..60), has_symbols: bool) {
        let answers = [said::few_servers(), said::many_servers(), said::nothing_yet(), said::hostile()];
        let look = Look { has_symbols, has_colours: true };
        let mut state = State::new(answers[0].clone());
        let mut size = (80, 24);
        for happening in happenings {
            match happening {
                Happening::Press(key) => drop(state.press(key)),
                Happening::Answer(which) => state.answered(answers[which].clone()),
                Happening::Failure => state.failed("no\u{1b}answer"),
                Happening::Size(columns, rows) => size = (columns, rows),
            }
            frame(&mut state, size, look);
        }
    }
}

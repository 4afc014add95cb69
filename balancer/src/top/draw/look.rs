//! What the terminal can do: symbols or ASCII, colours or none. States are words first, so nothing rests on either.

use ratatui::style::{Color, Modifier, Style};

use crate::top::sheet::Tone;

/// How things look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Characters beyond ASCII.
    pub has_symbols: bool,
    /// `NO_COLOR` is not set.
    pub has_colours: bool,
}

impl Look {
    /// As the environment says.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        // The first that is set counts, as in setlocale(3).
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_lowercase();
        Self {
            has_symbols: locale.contains("utf-8") || locale.contains("utf8"),
            has_colours: set("NO_COLOR").is_none(),
        }
    }

    fn one_of(self, symbol: char, ascii: char) -> char {
        if self.has_symbols { symbol } else { ascii }
    }

    /// Where a text is cut.
    pub(super) fn cut(self) -> char {
        self.one_of('…', '~')
    }

    pub(super) fn rule(self) -> char {
        self.one_of('─', '-')
    }

    pub(super) fn sorted(self, is_descending: bool) -> char {
        if is_descending { self.one_of('▼', 'v') } else { self.one_of('▲', '^') }
    }

    /// Before a server, for those who look at shapes.
    pub(super) fn state(self, state: &str) -> char {
        match state {
            "up" => self.one_of('●', '+'),
            "drain" => self.one_of('◐', '~'),
            "down" => self.one_of('✗', '!'),
            _ => self.one_of('■', '#'),
        }
    }

    /// Bars from nothing to all.
    pub(super) fn bars(self) -> [char; 8] {
        if self.has_symbols {
            ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            ['_', '.', ':', '-', '=', '+', '*', '#']
        }
    }

    /// What is ours is ASCII where it has to be; this makes the instance's text so.
    pub(super) fn text(self, text: &str) -> String {
        if self.has_symbols || text.is_ascii() {
            return text.to_owned();
        }
        text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.has_colours { style.fg(colour) } else { style }
    }

    pub(super) fn tone(self, tone: Tone) -> Style {
        let plain = Style::new();
        match tone {
            Tone::Plain => plain,
            Tone::Good => self.coloured(plain, Color::Green),
            Tone::Notable => self.coloured(plain, Color::Yellow),
            Tone::Bad => self.coloured(plain.add_modifier(Modifier::BOLD), Color::Red),
            Tone::Faint => plain.add_modifier(Modifier::DIM),
        }
    }

    pub(super) fn bar(self) -> Style {
        self.coloured(Style::new(), Color::Cyan)
    }

    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn faint(self) -> Style {
        self.tone(Tone::Faint)
    }

    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn notice(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED), Color::Yellow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_can_be_shown() {
        for (environment, has_symbols, has_colours) in [
            ("", false, true),
            ("LANG=C", false, true),
            ("LANG=de_DE.UTF-8", true, true),
            ("LANG=de_DE.UTF-8 LC_ALL=C", false, true),
            ("LANG=C.utf8 LC_ALL= NO_COLOR=1", true, false),
            ("LANG=C.utf8 NO_COLOR=", true, true),
        ] {
            let variable = |name: &str| {
                let mut set = environment.split(' ').filter_map(|set| set.split_once('='));
                set.find(|(set, _)| *set == name).map(|(_, value)| value.to_owned())
            };
            assert_eq!(Look::of(variable), Look { has_symbols, has_colours }, "{environment:?}");
        }
    }
}

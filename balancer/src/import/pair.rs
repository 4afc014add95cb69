//! One frontend and one backend of a configuration, and the lines that count for them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::sections::{Configuration, Directive, Kind, Place};

/// For whom a line counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Front,
    Back,
    /// Either of them.
    Any,
    Global,
}

/// What is carried over.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) configuration: &'a Configuration,
    /// Which sections.
    pub(super) front: usize,
    pub(super) back: usize,
    lines: Vec<Line<'a>>,
    /// Which of them begin with a word: many words are asked for, and there may be many lines.
    by_word: HashMap<&'a str, Vec<usize>>,
    /// Lines in whose place another one counts, and where that is.
    replaced: RefCell<HashMap<Place, Place>>,
}

#[derive(Debug)]
struct Line<'a> {
    directive: &'a Directive,
    section: usize,
    is_front: bool,
    is_back: bool,
    is_global: bool,
    /// Somebody has said what becomes of it.
    is_taken: Cell<bool>,
    /// It was among what somebody has asked for.
    counts: Cell<bool>,
}

impl<'a> Pair<'a> {
    /// The lines of the two, of what they inherit from, and of `global`.
    pub(super) fn new(configuration: &'a Configuration, front: usize, back: usize) -> Self {
        let (fronts, backs) = (configuration.chain(front), configuration.chain(back));
        let mut lines: Vec<Line<'a>> = Vec::new();
        for (index, section) in configuration.sections.iter().enumerate() {
            let (is_front, is_back) = (fronts.contains(&index), backs.contains(&index));
            let is_global = section.kind == Kind::Global;
            if is_front || is_back || is_global {
                lines.extend(section.directives.iter().map(|directive| Line {
                    directive,
                    section: index,
                    is_front,
                    is_back,
                    is_global,
                    is_taken: Cell::new(false),
                    counts: Cell::new(false),
                }));
            }
        }
        let mut by_word: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            let directive: &'a Directive = line.directive;
            by_word.entry(directive.word(0)).or_default().push(index);
        }
        Self { configuration, front, back, lines, by_word, replaced: RefCell::default() }
    }

    /// The lines that begin with these words, in order. On the other side HAProxy ignores such lines; so they are
    /// accounted for as well.
    pub(super) fn all(&self, side: Side, words: &[&str]) -> Vec<&'a Directive> {
        self.matching(side, words).into_iter().map(|line| line.directive).collect()
    }

    /// The one that counts where a later line takes the place of an earlier one.
    pub(super) fn last(&self, side: Side, words: &[&str]) -> Option<&'a Directive> {
        let mut found = self.all(side, words);
        let last = found.pop()?;
        self.replace(&found, last);
        Some(last)
    }

    /// The same, unless it says `no`.
    pub(super) fn on(&self, side: Side, words: &[&str]) -> Option<&'a Directive> {
        self.last(side, words).filter(|directive| !directive.is_no)
    }

    /// The same for whichever side says it.
    pub(super) fn on_either(&self, words: &[&str]) -> Vec<&'a Directive> {
        let mut found: Vec<_> =
            [Side::Front, Side::Back].into_iter().filter_map(|side| self.on(side, words)).collect();
        found.dedup_by_key(|line| line.place);
        found
    }

    /// Those of the last section that has any, where they take the place of all that is inherited. `counts` tells which
    /// lines are meant.
    pub(super) fn innermost(
        &self,
        side: Side,
        words: &[&str],
        counts: impl Fn(&Directive) -> bool,
    ) -> Vec<&'a Directive> {
        let found: Vec<_> =
            self.matching(side, words).into_iter().filter(|line| counts(line.directive)).collect();
        let last = found.last().map(|line| line.section);
        let (own, inherited): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|line| Some(line.section) == last);
        let directives = |lines: Vec<&Line<'a>>| lines.into_iter().map(|line| line.directive).collect();
        let own: Vec<&'a Directive> = directives(own);
        if let Some(first) = own.first() {
            self.replace(&directives(inherited), first);
        }
        own
    }

    /// `by` counts in the place of these.
    pub(super) fn replace(&self, lines: &[&Directive], by: &Directive) {
        self.replaced.borrow_mut().extend(lines.iter().map(|line| (line.place, by.place)));
    }

    /// Where the line is that counts in the place of this one.
    pub(super) fn replacement(&self, line: &Directive) -> Option<Place> {
        self.replaced.borrow().get(&line.place).copied()
    }

    /// Where the first line is in whose place each of these lines counts.
    pub(super) fn replacing(&self) -> HashMap<Place, Place> {
        let mut replacing = HashMap::new();
        for (&replaced, &by) in &*self.replaced.borrow() {
            let first = replacing.entry(by).or_insert(replaced);
            *first = replaced.min(*first);
        }
        replacing
    }

    /// Which section a line is of, as an index.
    pub(super) fn section(&self, line: &Directive) -> Option<usize> {
        self.line(line).map(|known| known.section)
    }

    /// Whether a line counts for the side that was asked about.
    pub(super) fn counts(&self, line: &Directive) -> bool {
        self.line(line).is_some_and(|known| known.counts.get())
    }

    fn line(&self, directive: &Directive) -> Option<&Line<'a>> {
        let index = self.lines.partition_point(|line| line.directive.place < directive.place);
        self.lines[index..].iter().find(|line| std::ptr::eq(line.directive, directive))
    }

    fn matching(&self, side: Side, words: &[&str]) -> Vec<&Line<'a>> {
        let mut found = Vec::new();
        let first = words.first().and_then(|word| self.by_word.get(word));
        for line in first.into_iter().flatten().map(|&index| &self.lines[index]) {
            let directive = line.directive;
            let is_it = words.len() <= directive.words.len()
                && words.iter().zip(&directive.words).all(|(wanted, word)| wanted == word);
            if !is_it || directive.is_conditional || line.is_global != (side == Side::Global) {
                continue;
            }
            line.is_taken.set(true);
            let counts = match side {
                Side::Front => line.is_front,
                Side::Back => line.is_back,
                Side::Any | Side::Global => true,
            };
            if counts {
                line.counts.set(true);
                found.push(line);
            }
        }
        found
    }

    /// Lines that nobody has asked for, and whether they are of `global`.
    pub(super) fn rest(&self) -> Vec<(&'a Directive, bool)> {
        let rest = self.lines.iter().filter(|line| !line.is_taken.get());
        rest.map(|line| (line.directive, line.is_global)).collect()
    }

    /// All lines, whoever has asked for them.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a Directive> {
        self.lines.iter().map(|line| line.directive)
    }

    pub(super) fn front_name(&self) -> &'a str {
        &self.configuration.sections[self.front].name
    }

    pub(super) fn back_name(&self) -> &'a str {
        &self.configuration.sections[self.back].name
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::choose;
    use super::*;

    #[test]
    fn a_later_line_takes_the_place_of_an_earlier_one_on_its_side() {
        let text = "defaults\n timeout client 1s\n option x\nfrontend f\n timeout client 2s\n default_backend b\n\
                    defaults\n timeout client 3s\n option y\nbackend b\n no option y\n server s 10.0.0.1:1\n";
        let read = Configuration::read(&[("f".into(), text.into())], &|_| None).expect("read");
        let (front, back) = choose(&read, None, None).expect("one");
        let pair = Pair::new(&read, front, back);
        assert_eq!(pair.last(Side::Front, &["timeout", "client"]).map(|line| line.word(2)), Some("2s"));
        assert!(pair.on(Side::Back, &["option", "x"]).is_none());
        assert!(pair.on(Side::Back, &["option", "y"]).is_none());
        let rest: Vec<_> = pair.rest().into_iter().map(|(line, _)| line.word(0)).collect();
        assert_eq!(rest, ["default_backend", "server"]);
    }
}

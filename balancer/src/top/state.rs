//! What is being looked at, and how: keys and answers in, something to draw out. No clock, no terminal, no socket.

use std::sync::Arc;

use super::key::Key;
use super::model::Answer;
use super::sheet::{Row, Sheet, Sorting};
use super::units;

/// A page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are called as what is on them")]
pub enum View {
    Overview,
    Servers,
    Tables,
    Flows,
    Decisions,
}

impl View {
    /// As their keys are, from 1.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Servers, Self::Tables, Self::Flows, Self::Decisions];

    /// What stands in its tab.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Servers => "Servers",
            Self::Tables => "Tables",
            Self::Flows => "Flows",
            Self::Decisions => "Decisions",
        }
    }

    fn place(self) -> usize {
        self as usize
    }

    fn moved(self, by: usize) -> Self {
        Self::ALL[(self.place() + by) % Self::ALL.len()]
    }

    /// Names from the first, what is counted from the most, what has happened from the last.
    fn first_sorting(self) -> Sorting {
        let (column, is_descending) = match self {
            Self::Overview | Self::Servers | Self::Tables => (0, false),
            Self::Flows => (6, true),
            Self::Decisions => (0, true),
        };
        Sorting { column, is_descending }
    }
}

/// A list and where in it somebody is.
#[derive(Clone, Debug)]
pub struct List {
    /// What it is sorted by.
    pub sorting: Sorting,
    /// The row that was gone to; `None`: whichever is the first.
    selected: Option<Selected>,
    /// Rows above the first that is seen.
    pub(super) offset: usize,
}

#[derive(Clone, Debug)]
struct Selected {
    key: String,
    /// Where it was last, for when it is gone.
    place: usize,
}

/// One thing, with all that is known of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Detail {
    /// A server, by its name.
    Server(String),
    /// A request, which may be forgotten by the instance while it is looked at.
    Decision(Box<super::model::Decision>),
}

/// What is to be asked besides the status.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// The fast connections.
    pub flows: bool,
    /// One server.
    pub server: Option<String>,
}

/// What a key asks for that is not done here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// To go on, and see what has changed.
    Go,
    /// To leave.
    Quit,
    /// To leave for a moment, for the shell.
    Suspend,
    /// To have everything drawn anew.
    Redraw,
}

#[derive(Clone, Debug)]
struct Frozen {
    answer: Arc<Answer>,
    since: u64,
}

/// Everything there is to know for drawing.
#[derive(Debug)]
pub struct State {
    view: View,
    lists: [List; 5],
    filter: String,
    is_typing: bool,
    is_helping: bool,
    detail: Option<Detail>,
    /// Lines of a text that are above its first one seen.
    pub(super) scrolled: usize,
    latest: Arc<Answer>,
    frozen: Option<Frozen>,
    failure: Option<String>,
    /// Rows that are seen at one time, as it was drawn last.
    pub(super) page: usize,
}

/// Characters of a filter.
const LONGEST_FILTER: usize = 60;

impl State {
    /// Begins with the overview.
    pub fn new(first: Answer) -> Self {
        let list = |view: View| List { sorting: view.first_sorting(), selected: None, offset: 0 };
        Self {
            view: View::Overview,
            lists: View::ALL.map(list),
            filter: String::new(),
            is_typing: false,
            is_helping: false,
            detail: None,
            scrolled: 0,
            latest: Arc::new(first),
            frozen: None,
            failure: None,
            page: 1,
        }
    }

    /// There is an answer.
    pub fn answered(&mut self, answer: Answer) {
        self.latest = Arc::new(answer);
        self.failure = None;
    }

    /// There is none, and why.
    pub fn failed(&mut self, why: &str) {
        self.failure = Some(why.to_owned());
    }

    /// What is to be asked for.
    pub fn wants(&self) -> Wants {
        let server = match &self.detail {
            Some(Detail::Server(name)) => Some(name.clone()),
            _ => None,
        };
        Wants { flows: self.view == View::Flows, server }
    }

    /// The page.
    pub fn view(&self) -> View {
        self.view
    }

    /// What is shown: the last answer, or that at which it was frozen.
    pub fn shown(&self) -> Arc<Answer> {
        Arc::clone(self.frozen.as_ref().map_or(&self.latest, |frozen| &frozen.answer))
    }

    /// What is looked at more closely.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_ref()
    }

    /// The keys are being explained.
    pub fn is_helping(&self) -> bool {
        self.is_helping
    }

    /// What rows must have in them, and whether it is still being written.
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.is_typing)
    }

    /// That what is seen is not what is.
    pub fn notices(&self) -> Vec<String> {
        let frozen =
            self.frozen.as_ref().map(|frozen| format!("FROZEN since {} UTC", units::clock(frozen.since)));
        let failure = self
            .failure
            .as_ref()
            .map(|why| format!("NO ANSWER since {} UTC: {why}", units::clock(self.latest.at)));
        frozen.into_iter().chain(failure).collect()
    }

    /// The list of the page, filtered and sorted, and the row that is selected.
    pub fn sheet(&self) -> Option<(Sheet, usize)> {
        let answer = self.shown();
        let sheet = match self.view {
            View::Overview => return None,
            View::Servers => Sheet::servers(&answer),
            View::Tables => Sheet::tables(&answer),
            View::Flows => Sheet::flows(&answer),
            View::Decisions => Sheet::decisions(&answer),
        };
        let list = &self.lists[self.view.place()];
        let sheet = sheet.filtered(&self.filter).sorted(list.sorting);
        let place = match &list.selected {
            None => 0,
            Some(selected) => {
                let is_it = |row: &Row| row.key == selected.key;
                // Where it was, if it is there: others may be called the same.
                let stayed = sheet.rows.get(selected.place).is_some_and(is_it);
                let moved = || sheet.rows.iter().position(is_it);
                if stayed { selected.place } else { moved().unwrap_or(selected.place) }
            }
        };
        let last = sheet.rows.len().saturating_sub(1);
        Some((sheet, place.min(last)))
    }

    /// The list of the page.
    pub fn list(&self) -> &List {
        &self.lists[self.view.place()]
    }

    pub(super) fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.view.place()]
    }

    /// A key was pressed.
    pub fn press(&mut self, key: Key) -> Wish {
        match key {
            Key::Interrupt => return Wish::Quit,
            Key::Suspend => return Wish::Suspend,
            Key::Redraw => return Wish::Redraw,
            key if self.is_typing => self.type_filter(key),
            Key::Char('q') => return Wish::Quit,
            key if self.is_helping => self.read(key, |state| state.is_helping = false),
            key if self.detail.is_some() && self.read_detail(key) => {}
            key => self.go(key),
        }
        Wish::Go
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.filter.chars().count() < LONGEST_FILTER && !c.is_control() => {
                self.filter.push(c);
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.is_typing = false;
                self.filter.clear();
            }
            _ => {}
        }
        self.go_to_top();
    }

    /// Moves in a text; anything else closes it.
    fn read(&mut self, key: Key, close: impl FnOnce(&mut Self)) {
        let page = self.page.max(1);
        match key {
            Key::Down | Key::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
            Key::Up | Key::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            Key::PageDown => self.scrolled = self.scrolled.saturating_add(page),
            Key::PageUp => self.scrolled = self.scrolled.saturating_sub(page),
            Key::Home | Key::Char('g') => self.scrolled = 0,
            Key::End | Key::Char('G') => self.scrolled = usize::MAX,
            _ => {
                self.scrolled = 0;
                close(self);
            }
        }
    }

    /// False: the key is one of the page's, which closes the detail.
    fn read_detail(&mut self, key: Key) -> bool {
        match key {
            Key::Char('?') => self.help(),
            Key::Char(' ' | 'f') => self.freeze(),
            Key::Char('1'..='5') | Key::Tab | Key::BackTab => {
                self.detail = None;
                self.scrolled = 0;
                return false;
            }
            key => self.read(key, |state| state.detail = None),
        }
        true
    }

    fn go(&mut self, key: Key) {
        let views = View::ALL.len();
        match key {
            Key::Char(c @ '1'..='5') => self.view = View::ALL[c as usize - '1' as usize],
            Key::Tab | Key::Right | Key::Char('l') => self.view = self.view.moved(1),
            Key::BackTab | Key::Left | Key::Char('h') => self.view = self.view.moved(views - 1),
            Key::Char('?') => self.help(),
            Key::Char(' ' | 'f') => self.freeze(),
            Key::Char('/') if self.view != View::Overview => self.is_typing = true,
            Key::Escape => {
                self.filter.clear();
                self.go_to_top();
            }
            Key::Char('s' | '>') => self.sort_by_next(true),
            Key::Char('<') => self.sort_by_next(false),
            Key::Char('S') => {
                let sorting = &mut self.list_mut().sorting;
                sorting.is_descending = !sorting.is_descending;
            }
            Key::Enter => self.look_closer(),
            key => self.walk(key),
        }
    }

    fn help(&mut self) {
        (self.is_helping, self.scrolled) = (true, 0);
    }

    fn freeze(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Frozen { answer: Arc::clone(&self.latest), since: self.latest.at }),
        };
    }

    fn go_to_top(&mut self) {
        for list in &mut self.lists {
            list.selected = None;
        }
    }

    fn sort_by_next(&mut self, is_forward: bool) {
        let Some((sheet, _)) = self.sheet() else { return };
        let (list, count) = (self.list_mut(), sheet.columns.len());
        let column = (list.sorting.column + if is_forward { 1 } else { count - 1 }) % count;
        list.sorting = Sorting { column, is_descending: sheet.columns[column].is_number };
    }

    fn walk(&mut self, key: Key) {
        let Some((sheet, place)) = self.sheet() else { return };
        let last = sheet.rows.len().saturating_sub(1);
        let place = match key {
            Key::Up | Key::Char('k') => place.saturating_sub(1),
            Key::Down | Key::Char('j') => place + 1,
            Key::PageUp => place.saturating_sub(self.page),
            Key::PageDown => place.saturating_add(self.page),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            _ => return,
        };
        let place = place.min(last);
        // Who is at the top stays there whatever comes.
        let row = sheet.rows.get(place).filter(|_| place > 0);
        self.list_mut().selected = row.map(|row| Selected { key: row.key.clone(), place });
    }

    fn look_closer(&mut self) {
        let Some((sheet, place)) = self.sheet() else { return };
        let Some(row) = sheet.rows.get(place) else { return };
        let answer = self.shown();
        self.detail = match self.view {
            View::Servers => Some(Detail::Server(row.key.clone())),
            View::Decisions => {
                let is_it = |decision: &&super::model::Decision| super::sheet::key_of(decision) == row.key;
                let decision = answer.status.decisions.iter().find(is_it);
                decision.map(|decision| Detail::Decision(Box::new(decision.clone())))
            }
            _ => None,
        };
        self.scrolled = 0;
    }
}

//! What has become of the configuration: flags, and what could not become one.

use std::collections::HashSet;

use super::rules;
use super::sections::{Directive, Place, Section, short};

/// A flag of the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flag {
    /// With dashes.
    pub(super) flag: &'static str,
    /// `None` for a switch.
    pub(super) value: Option<String>,
    /// The lines it comes from; none: it says what HAProxy does without being told.
    pub(super) from: Vec<(Place, String)>,
    /// Why it is there, where no line says so.
    pub(super) why: String,
}

/// What has become of a line that is not simply a flag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Verdict {
    /// Nothing here does that.
    Left,
    /// Carried over, and yet not the same.
    Differs,
    /// Nothing is lost without it.
    Moot,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Differs => "differs",
            Self::Moot => "moot",
        }
    }
}

/// One such line, or a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remark {
    pub(super) verdict: Verdict,
    pub(super) place: Place,
    pub(super) directive: String,
    pub(super) why: String,
    /// The nearest thing here; empty where nothing is near.
    pub(super) nearest: String,
    /// It is left, and it decides who gets in or where they go.
    pub(super) is_access: bool,
}

/// The result while it is being made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sheet {
    pub(super) flags: Vec<Flag>,
    pub(super) remarks: Vec<Remark>,
    /// What should be known of the whole.
    pub(super) notes: Vec<String>,
}

impl Sheet {
    /// A flag that comes from these lines.
    pub(super) fn flag(&mut self, flag: &'static str, value: impl Into<String>, from: &[&Directive]) {
        let from = from.iter().map(|directive| (directive.place, short(&directive.text()))).collect();
        self.flags.push(Flag { flag, value: Some(value.into()), from, why: String::new() });
    }

    /// A flag that says what HAProxy does unless told otherwise.
    pub(super) fn implied(&mut self, flag: &'static str, value: impl Into<String>, why: &str) {
        self.flags.push(Flag { flag, value: Some(value.into()), from: vec![], why: why.into() });
    }

    /// The last flag is there for one more reason.
    pub(super) fn because(&mut self, why: &str) {
        if let Some(flag) = self.flags.last_mut() {
            flag.why = why.into();
        }
    }

    pub(super) fn left(&mut self, directive: &Directive, why: impl Into<String>, nearest: impl Into<String>) {
        self.remark(Verdict::Left, directive, &directive.text(), why.into(), nearest.into());
    }

    pub(super) fn differs(
        &mut self,
        directive: &Directive,
        why: impl Into<String>,
        nearest: impl Into<String>,
    ) {
        self.remark(Verdict::Differs, directive, &directive.text(), why.into(), nearest.into());
    }

    pub(super) fn moot(&mut self, directive: &Directive, why: impl Into<String>) {
        self.remark(Verdict::Moot, directive, &directive.text(), why.into(), String::new());
    }

    /// About what a section does not say, and HAProxy takes in another way than we do.
    pub(super) fn missing(
        &mut self,
        section: &Section,
        what: &str,
        why: impl Into<String>,
        nearest: impl Into<String>,
    ) {
        self.remarks.push(Remark {
            verdict: Verdict::Differs,
            place: section.place,
            directive: short(&format!("{} {} … no {what}", section.word, section.name)),
            why: why.into(),
            nearest: nearest.into(),
            is_access: false,
        });
    }

    /// About a part of a line.
    pub(super) fn part(
        &mut self,
        verdict: Verdict,
        directive: &Directive,
        part: &str,
        why: impl Into<String>,
        nearest: impl Into<String>,
    ) {
        let head: Vec<&str> = directive.words.iter().take(2).map(String::as_str).collect();
        self.remark(verdict, directive, &format!("{} … {part}", head.join(" ")), why.into(), nearest.into());
    }

    /// Of a part that has no part in what is carried over.
    pub(super) fn left_part(
        &mut self,
        directive: &Directive,
        part: &str,
        why: impl Into<String>,
        nearest: impl Into<String>,
    ) {
        self.part(Verdict::Left, directive, part, why, nearest);
    }

    /// The same of a part that decides who gets in or where they go.
    pub(super) fn access_part(
        &mut self,
        directive: &Directive,
        part: &str,
        why: impl Into<String>,
        nearest: impl Into<String>,
    ) {
        self.left_part(directive, part, why, nearest);
        if let Some(remark) = self.remarks.last_mut() {
            remark.is_access = true;
        }
    }

    fn remark(&mut self, verdict: Verdict, directive: &Directive, text: &str, why: String, nearest: String) {
        let place = directive.place;
        let is_access = verdict == Verdict::Left && rules::is_access(directive);
        self.remarks.push(Remark { verdict, place, directive: short(text), why, nearest, is_access });
    }

    pub(super) fn values<'a>(&'a self, flag: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |known| known.flag == flag).filter_map(|known| known.value.as_deref())
    }

    /// What decides who gets in first, then in the order of the file, each remark once: a line may be looked at for several
    /// flags.
    pub(super) fn tidy(&mut self) {
        self.remarks.sort_by_key(|remark| (!remark.is_access, remark.place));
        let mut said = HashSet::new();
        self.remarks.retain(|remark| {
            said.insert((remark.place, remark.directive.clone(), remark.why.clone(), remark.verdict))
        });
    }

    /// How many lines are to be looked at by a person.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.remarks.iter().filter(|remark| remark.verdict == verdict).count()
    }
}

//! `check --dump`: every setting as it takes effect, and where it came from, in a form that can be used as an `@FILE`.

use std::fmt::Write;

use super::{Plan, fast_path};
use crate::cli::parse_switch;
use crate::cli::settings::{Origin, Setting, variable};

impl Plan {
    /// One line per value: `--flag value  # where it came from`.
    pub fn dump(&self) -> String {
        let lines: Vec<(String, String)> =
            self.settings.0.iter().flat_map(|setting| self.lines(setting)).collect();
        let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
        lines.iter().fold(String::new(), |mut dump, (text, origin)| {
            // Writing to a string cannot fail.
            let _ = writeln!(dump, "{text:width$}  # {origin}");
            dump
        })
    }

    fn lines(&self, setting: &Setting) -> Vec<(String, String)> {
        let flag = &setting.flag;
        let (values, note) = self.effective(setting);
        let origin = match setting.origin {
            Origin::Flag => "flag".into(),
            Origin::Environment => variable(flag),
            Origin::Default => format!("default{note}"),
        };
        if setting.is_switch {
            let on = values.iter().any(|value| parse_switch(value) == Ok(true));
            let text = if on { format!("--{flag}") } else { format!("# --{flag} is off") };
            return vec![(text, origin)];
        }
        if values.is_empty() {
            return vec![(format!("# no --{flag}"), origin)];
        }
        values.iter().map(|value| (format!("--{flag} {}", quoted(value)), origin.clone())).collect()
    }

    /// What the values come to where nothing was given, or where `auto` was.
    fn effective(&self, setting: &Setting) -> (Vec<String>, &'static str) {
        let config = &self.config;
        match (setting.flag.as_str(), &config.datapath) {
            ("workers", _) => (vec![config.workers.to_string()], ", the cores available"),
            ("admin", _) => (vec![config.admin.display().to_string()], ""),
            ("timeout-queue", _) if setting.origin == Origin::Default => {
                let connect = self.settings.0.iter().find(|setting| setting.flag == "timeout-connect");
                (
                    connect.map_or_else(Vec::new, |connect| connect.values.clone()),
                    ", that of --timeout-connect",
                )
            }
            ("fast-path", Some(datapath)) if setting.values == ["auto"] => {
                (vec![fast_path::word(datapath.fast_path).into()], ", auto resolved")
            }
            _ => (setting.values.clone(), ""),
        }
    }
}

/// As an `@FILE` wants it.
pub(crate) fn quoted(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    if !value.is_empty() && !value.starts_with('#') && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_spaces_are_quoted_for_a_file() {
        assert_eq!(quoted("s1=10.0.0.1:80,id=a"), "s1=10.0.0.1:80,id=a");
        assert_eq!(quoted("/var/log/my log"), "\"/var/log/my log\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted(""), "\"\"");
    }
}

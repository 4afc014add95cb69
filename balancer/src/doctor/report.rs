//! All checks, as people and as programs read them.

use std::fmt::Write;

use anyhow::bail;

use super::row::{Row, State};

/// What was found, in the order in which it was looked at.
#[derive(Clone, Debug)]
pub struct Report(pub Vec<Row>);

impl Report {
    /// A row each, what to type below it.
    pub fn table(&self) -> String {
        let width = self.0.iter().map(|row| row.check.chars().count()).max().unwrap_or_default();
        let mut table = String::new();
        for Row { check, state, detail, mend } in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{:7}  {check:width$}  {detail}", state.word());
            if let Some(mend) = mend {
                let _ = writeln!(table, "{:7}  {:width$}  mend: {mend}", "", "");
            }
        }
        table
    }

    /// An array of `{check, state, detail, mend}`.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }

    /// Whether this host will do.
    ///
    /// # Errors
    /// Something is missing.
    pub fn verdict(&self) -> anyhow::Result<()> {
        match self.0.iter().filter(|row| row.state == State::Missing).count() {
            0 => Ok(()),
            1 => bail!("one thing is missing here, see above"),
            several => bail!("{several} things are missing here, see above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_a_mend_stands_below_its_row() {
        let report = Report(vec![
            Row::ok("kernel", "6.18"),
            Row::missing("forwarding eth0", "off").mend("sysctl -w net.ipv4.ip_forward=1"),
        ]);
        assert_eq!(
            report.table(),
            "ok       kernel           6.18\n\
             missing  forwarding eth0  off\n\
             \x20                         mend: sysctl -w net.ipv4.ip_forward=1\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json[0]["state"], "ok");
        assert!(json[0]["mend"].is_null());
        assert_eq!(json[1]["mend"], "sysctl -w net.ipv4.ip_forward=1");
        assert!(report.verdict().is_err());
        assert!(Report(vec![Row::warning("mtu eth0", "large")]).verdict().is_ok());
    }
}

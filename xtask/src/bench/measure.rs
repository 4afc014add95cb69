//! The rounds: every contender under every workload, one after the other, again and again.

use anyhow::Result;

use super::Options;
use super::contender::Contender;
use super::pin::{OTHERS, Work};
use crate::lab::interrupt;
use crate::lab::wrk::{Figures, Load};

pub(super) const CONNECTIONS: u32 = 64;
pub(super) const WARM_UP_SECONDS: u32 = 1;

/// How clients use their connections, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) reuse: Reuse,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    KeepAlive,
    NewConnections,
}

/// What the origin answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Small,
    Large,
}

impl Workload {
    pub(super) const SMALL: &[Self] = &[
        Self { reuse: Reuse::KeepAlive, body: Body::Small },
        Self { reuse: Reuse::NewConnections, body: Body::Small },
    ];
    pub(super) const ALL: &[Self] = &[
        Self { reuse: Reuse::KeepAlive, body: Body::Small },
        Self { reuse: Reuse::NewConnections, body: Body::Small },
        Self { reuse: Reuse::KeepAlive, body: Body::Large },
        Self { reuse: Reuse::NewConnections, body: Body::Large },
    ];

    pub(super) fn name(self) -> String {
        let reuse = match self.reuse {
            Reuse::KeepAlive => "keep-alive",
            Reuse::NewConnections => "new connections",
        };
        format!("{reuse}, {}", self.body.name())
    }

    pub(super) fn load(self, contender: &Contender, seconds: u32) -> Load {
        // Every row sends the cookie, so that every row sends the same bytes.
        let mut headers = vec!["Cookie: SRV=s1".to_owned()];
        if self.reuse == Reuse::NewConnections {
            headers.push("Connection: close".to_owned());
        }
        let url = format!("http://{}{}", contender.address, self.body.path());
        Load { url, headers, connections: CONNECTIONS, seconds, core: Some(OTHERS) }
    }
}

impl Body {
    /// Origins do not log these.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Small => "/quiet",
            Self::Large => "/quiet100k",
        }
    }

    pub(super) fn length(self) -> usize {
        match self {
            Self::Small => 13,
            Self::Large => 100 * 1024,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Small => "13 bytes",
            Self::Large => "100 kB",
        }
    }
}

/// All rounds of one contender under one workload, with what the path itself counted.
#[derive(Debug)]
pub(super) struct Series {
    /// Index into the contenders.
    pub(super) contender: usize,
    pub(super) workload: Workload,
    pub(super) figures: Vec<Figures>,
    /// How busy the core for who is measured was in each round.
    pub(super) busy: Vec<f64>,
    /// Connections that XDP forwarded, where the contender counts them.
    pub(super) forwarded: u64,
}

impl Series {
    /// Requests that were not answered as they should be.
    pub(super) fn errors(&self) -> u64 {
        self.figures.iter().map(|figures| figures.refused + figures.broken).sum()
    }

    /// Round 0 is a warm-up, of which nothing is kept.
    fn measure(&mut self, contender: &Contender, round: u32, options: &Options) -> Result<()> {
        let seconds = if round == 0 { WARM_UP_SECONDS } else { options.seconds };
        let (before, work) = (contender.forwarded()?, Work::read()?);
        let figures = self.workload.load(contender, seconds).run(contender.client())?;
        let busy = Work::read()?.share_since(work);
        contender.empty_log()?;
        let label = if round == 0 { "warm-up".to_owned() } else { format!("round {round}") };
        println!(
            "bench: {label:<8} {:<18} {:<26} {:>8.0} req/s",
            contender.name,
            self.workload.name(),
            figures.rate
        );
        if round > 0 {
            self.forwarded += contender.forwarded()? - before;
            self.figures.push(figures);
            self.busy.push(busy);
        }
        Ok(())
    }
}

/// All rounds of a workload, then those of the next one: what opens connections by the ten thousand leaves its mark on tables.
/// Within a round one contender after the other: neighbours in time are the rows that are compared.
pub(super) fn measure(
    contenders: &[Contender],
    workloads: &[Workload],
    options: &Options,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    for &workload in workloads {
        for contender in 0..contenders.len() {
            all.push(Series { contender, workload, figures: Vec::new(), busy: Vec::new(), forwarded: 0 });
        }
    }
    for &workload in workloads {
        for round in 0..=options.rounds {
            for series in all.iter_mut().filter(|series| series.workload == workload) {
                interrupt::check()?;
                series.measure(&contenders[series.contender], round, options)?;
            }
        }
    }
    Ok(all)
}

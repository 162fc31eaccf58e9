//! The Prometheus text format, as far as tests need it.

/// The samples of one scrape.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
    helped: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses a scrape; panics on a line that is none of the format's.
    pub(crate) fn parse(text: &str) -> Metrics {
        let helped = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        let helped = helped.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line| Sample::parse(line).unwrap_or_else(|| panic!("no sample: {line}"));
        Metrics { samples: lines.map(sample).collect(), helped }
    }

    /// The sum over all series of a name that carry these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether there is a series of this name with these labels.
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.of(name, labels).next().is_some()
    }

    /// Every family's name, from its HELP line.
    pub(crate) fn families(&self) -> &[String] {
        &self.helped
    }

    /// Label values and values of every series of a name, in a stable order.
    pub(crate) fn series(&self, name: &str) -> Vec<(String, f64)> {
        let text = |sample: &Sample| {
            let values: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
            (values.join(","), sample.value)
        };
        let mut series: Vec<_> = self.of(name, &[]).map(text).collect();
        series.sort_by(|one, other| one.0.cmp(&other.0));
        series
    }

    fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let carries = |sample: &Sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.iter().any(|(name, is)| name == key && is == value)
            };
            labels.iter().all(has)
        };
        self.samples.iter().filter(move |sample| sample.name == name && carries(sample))
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Sample> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}')?;
        let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        };
        let labels = pairs.map(pair).collect::<Option<_>>()?;
        Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

#[test]
fn samples_are_summed_by_their_labels() {
    let text =
        "# HELP a Help.\n# TYPE a counter\na{x=\"1\",y=\"p,q\"} 2\na{x=\"2\",y=\"r\"} 3\nb 1e3\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.sum("a", &[]), 5.0);
    assert_eq!(metrics.sum("a", &[("y", "p,q")]), 2.0);
    assert_eq!(metrics.sum("b", &[]), 1000.0);
    assert!(metrics.has("b", &[]) && !metrics.has("a", &[("x", "3")]));
    assert_eq!(metrics.families(), ["a"]);
}

//! Everything around the balancer that is not the balancer: getting a machine ready, the demo, the test
//! runner, the benchmarks, and the network laboratory that they and the integration tests share.
//!
//! | module | what it does |
//! |---|---|
//! | [`setup`] | finds or installs the eBPF toolchain and the programs the laboratory needs |
//! | [`lab`] | network namespaces with real programs in them, all gone when dropped |
//! | [`demo`] | the story of a known client, each step checked against what can be observed |
//! | [`bench`] | the paths side by side under the same load |
//! | [`test`] | builds as the user, runs what needs privileges as root, adds up the results |
//! | [`kernels`] | boots an old kernel and runs the XDP program's fixtures in it |
//! | [`fuzz`] | builds the fuzz targets and runs them |
//! | [`dist`] | a package and an archive |
//! | [`run`] | builds the daemon and becomes it |
//! | [`build`] | calls cargo and collects what it made |
//! | [`privilege`] | who is asking, and how one step is done as root or as that user |

pub mod bench;
pub mod build;
pub mod demo;
pub mod dist;
pub mod fuzz;
pub mod kernels;
pub mod lab;
pub mod privilege;
pub mod run;
pub mod setup;
pub mod test;

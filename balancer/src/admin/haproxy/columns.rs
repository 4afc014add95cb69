//! The columns of `show stat` in HAProxy 2.6, in its order: the name, and the three letters of `typed`.

/// Name, and origin, nature and scope of what stands in it.
#[rustfmt::skip]
pub(super) const COLUMNS: &[(&str, &str)] = &[
    ("pxname", "KNS"), ("svname", "KNS"), ("qcur", "MGP"), ("qmax", "MMP"), ("scur", "MGP"),
    ("smax", "MMP"), ("slim", "CLP"), ("stot", "MCP"), ("bin", "MCP"), ("bout", "MCP"), ("dreq", "MCP"),
    ("dresp", "MCP"), ("ereq", "MCP"), ("econ", "MCP"), ("eresp", "MCP"), ("wretr", "MCP"),
    ("wredis", "MCP"), ("status", "SGP"), ("weight", "MaP"), ("act", "SGP"), ("bck", "SGP"),
    ("chkfail", "MCP"), ("chkdown", "MCP"), ("lastchg", "MAP"), ("downtime", "MCP"), ("qlimit", "CLS"),
    ("pid", "KGP"), ("iid", "KGS"), ("sid", "KGS"), ("throttle", "MaP"), ("lbtot", "MCP"),
    ("tracked", "CNS"), ("type", "CGS"), ("rate", "MRP"), ("rate_lim", "CLP"), ("rate_max", "MMP"),
    ("check_status", "MOP"), ("check_code", "MOP"), ("check_duration", "MDP"), ("hrsp_1xx", "MCP"),
    ("hrsp_2xx", "MCP"), ("hrsp_3xx", "MCP"), ("hrsp_4xx", "MCP"), ("hrsp_5xx", "MCP"),
    ("hrsp_other", "MCP"), ("hanafail", "MCP"), ("req_rate", "MRP"), ("req_rate_max", "MMP"),
    ("req_tot", "MCP"), ("cli_abrt", "MCP"), ("srv_abrt", "MCP"), ("comp_in", "MCP"), ("comp_out", "MCP"),
    ("comp_byp", "MCP"), ("comp_rsp", "MCP"), ("lastsess", "MAP"), ("last_chk", "MOP"), ("last_agt", "MOP"),
    ("qtime", "MaP"), ("ctime", "MaP"), ("rtime", "MaP"), ("ttime", "MaP"), ("agent_status", "MOP"),
    ("agent_code", "MOP"), ("agent_duration", "MDP"), ("check_desc", "MOP"), ("agent_desc", "MOP"),
    ("check_rise", "CGS"), ("check_fall", "CGS"), ("check_health", "CGS"), ("agent_rise", "CGS"),
    ("agent_fall", "CGS"), ("agent_health", "CGS"), ("addr", "CGS"), ("cookie", "CNS"), ("mode", "CGS"),
    ("algo", "CGS"), ("conn_rate", "MRP"), ("conn_rate_max", "MMP"), ("conn_tot", "MCP"),
    ("intercepted", "MCP"), ("dcon", "MCP"), ("dses", "MCP"), ("wrew", "MCP"), ("connect", "MCP"),
    ("reuse", "MCP"), ("cache_lookups", "MCP"), ("cache_hits", "MCP"), ("srv_icur", "MGP"),
    ("src_ilim", "CLP"), ("qtime_max", "MMP"), ("ctime_max", "MMP"), ("rtime_max", "MMP"),
    ("ttime_max", "MMP"), ("eint", "MCP"), ("idle_conn_cur", "MGP"), ("safe_conn_cur", "MGP"),
    ("used_conn_cur", "MGP"), ("need_conn_est", "MGP"), ("uweight", "MaP"), ("agg_server_status", "MGP"),
    ("agg_server_check_status", "MGP"), ("agg_check_status", "MGP"), ("ssl_sess", "MCP"),
    ("ssl_reused_sess", "MCP"), ("ssl_failed_handshake", "MCP"), ("h2_headers_rcvd", "MCP"),
    ("h2_data_rcvd", "MCP"), ("h2_settings_rcvd", "MCP"), ("h2_rst_stream_rcvd", "MCP"),
    ("h2_goaway_rcvd", "MCP"), ("h2_detected_conn_protocol_errors", "MCP"),
    ("h2_detected_strm_protocol_errors", "MCP"), ("h2_rst_stream_resp", "MCP"), ("h2_goaway_resp", "MCP"),
    ("h2_open_connections", "MGP"), ("h2_backend_open_streams", "MGP"), ("h2_total_connections", "MCP"),
    ("h2_backend_total_streams", "MCP"), ("h1_open_connections", "MGP"), ("h1_open_streams", "MGP"),
    ("h1_total_connections", "MCP"), ("h1_total_streams", "MCP"), ("h1_bytes_in", "MCP"),
    ("h1_bytes_out", "MCP"), ("h1_spliced_bytes_in", "MCP"), ("h1_spliced_bytes_out", "MCP"),
];

/// In CSV a column `-` stands behind this one: what follows depends on how HAProxy was built.
pub(super) const LAST_FIXED: &str = "agg_check_status";

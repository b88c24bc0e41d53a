#pragma once

#include <string>
#include <vector>

#include "query_runs.h"

namespace tercet::benchmarks {

/// The line below a table: how it was measured.
std::string Conditions(const RunOptions& options, const std::vector<Row>& rows);

/// All rows as a Markdown table, as CSV with a head, and as JSON.
std::string ToMarkdown(const std::vector<Row>& rows);
std::string ToCsv(const std::vector<Row>& rows);
std::string ToJson(const std::vector<Row>& rows);

/// Bars of the rows of one batch size, grouped by network and link, one series a suite: the online
/// time of an image, or with `total` offline and online together. SVG.
std::string ToChart(const std::vector<Row>& rows, std::size_t batch, bool total);

}  // namespace tercet::benchmarks

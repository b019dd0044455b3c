// Compares every function of kernels.h, in every instruction set that this processor has, with a plain loop in
// wider arithmetic, on random shapes, dtypes, options and values, some of them hostile.
//
//   fuzz [--cases N] [--seed S] [--most ELEMENTS]    N problems, drawn from seed S on
//   fuzz --case SEED [--most ELEMENTS]               one of them again
//
// Looked at are the values, within bounds that are derived in bounds.cpp and reference.cpp; the bits, which must
// be the same with every number of threads, order of tasks and alignment; and what lies around the arrays.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "bounds.h"
#include "cells.h"
#include "check.h"
#include "memory.h"

namespace normwright::fuzz {
namespace {

struct Options {
  std::int64_t cases = 1000;
  std::uint64_t seed = 1;
  std::int64_t most = 100'000;
  bool one = false;
};

[[noreturn]] void stop(const char* text) {
  std::fprintf(stderr, "%s\nusage: fuzz [--cases N | --case SEED] [--seed S] [--most ELEMENTS]\n", text);
  std::exit(2);
}

Options read_options(int count, char** words) {
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string word = words[i];
    if (i + 1 == count) stop((word + " needs a number").c_str());
    char* end = nullptr;
    const std::uint64_t number = std::strtoull(words[i + 1], &end, 0);
    if (*end != '\0') stop((word + " needs a number, not " + words[i + 1]).c_str());
    if (word == "--cases") {
      options.cases = static_cast<std::int64_t>(number);
    } else if (word == "--most") {
      options.most = static_cast<std::int64_t>(number);
    } else if (word == "--seed") {
      options.seed = number;
    } else if (word == "--case") {
      options.seed = number;
      options.one = true;
    } else {
      stop(("unknown option " + word).c_str());
    }
  }
  return options;
}

// Described before it runs, for a sanitizer or the processor may end the program in it.
std::string description;

template <class AnyProblem>
bool passes(const Kernels& kernels, const AnyProblem& problem, std::uint64_t seed, const Options& options) {
  description = std::string(kernels.instruction_set) + " " + problem.name() + "\nagain: fuzz --case " +
                std::to_string(seed) + " --most " + std::to_string(options.most) + "\n";
  say_at_death(description.c_str());
  const std::string wrong = check(kernels, problem, seed);
  if (wrong.empty()) return true;
  std::fprintf(stderr, "\n%s%s\n", description.c_str(), wrong.c_str());
  return false;
}

// How often each function was run.
using Done = std::map<std::string, std::int64_t>;

// Returns on how many instruction sets the problem fails.
template <class AnyProblem>
int failures_of(const AnyProblem& problem, const char* function, std::uint64_t seed, const Options& options,
                Done& done) {
  int failures = 0;
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels) {
    if (!passes(**kernels, problem, seed, options)) ++failures;
    ++done[std::string(function) + " " + (*kernels)->instruction_set];
  }
  return failures;
}

// One in eight is an LSTM's cell.
int run_case(std::uint64_t seed, const Options& options, Done& done) {
  if (seed % 8 == 0) {
    const CellProblem problem = random_cell(seed, options.most);
    return failures_of(problem, problem.function_name(), seed, options, done);
  }
  const Problem problem = random_problem(seed, options.most);
  return failures_of(problem, name_of(problem.function), seed, options, done);
}

int run(const Options& options) {
  Random seeds(options.seed);
  Done done;
  int failures = 0;
  for (std::int64_t i = 0; i < (options.one ? 1 : options.cases) && failures < 10; ++i) {
    failures += run_case(options.one ? options.seed : seeds.bits(), options, done);
  }
  say_at_death("");
  for (const auto& [name, count] : done) std::printf("%6lld  %s\n", static_cast<long long>(count), name.c_str());
  std::printf("%lld values, %lld of them without a bound\n", static_cast<long long>(compared.values),
              static_cast<long long>(compared.unbounded));
  if (failures) std::fprintf(stderr, "%d failed\n", failures);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace normwright::fuzz

int main(int count, char** words) { return normwright::fuzz::run(normwright::fuzz::read_options(count, words)); }

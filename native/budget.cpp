#include "budget.h"

namespace trackserve {
namespace {

constexpr double YEAR = 3e7;  // seconds, beyond which there is no end
thread_local Deadline::Time deadline = Deadline::Time::max();

}  // namespace

Deadline::Deadline(double seconds) : before_(deadline) {
    if (!(seconds < YEAR)) return;
    const std::chrono::duration<double> wait(seconds > 0 ? seconds : 0);
    deadline = std::chrono::steady_clock::now() +
               std::chrono::duration_cast<std::chrono::steady_clock::duration>(wait);
}

Deadline::~Deadline() { deadline = before_; }

Deadline::Time Deadline::own() { return deadline; }

}  // namespace trackserve

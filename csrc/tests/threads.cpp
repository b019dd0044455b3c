#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "random.h"

namespace normwright::fuzz {
namespace {

// Threads that sleep between calls; creating some for each would take longer than the tasks.
class Pool {
 public:
  static constexpr int kThreads = 8;

  Pool() {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(int threads, const std::vector<std::int64_t>& order, Parallel::Task task, void* context) {
    std::unique_lock lock(mutex_);
    order_ = &order;
    task_ = task;
    context_ = context;
    next_ = 0;
    wanted_ = threads;
    running_ = threads;
    ++generation_;
    wake_.notify_all();
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void work(int number) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return closing_ || generation_ != seen; });
      if (closing_) return;
      seen = generation_;
      if (number >= wanted_) continue;
      lock.unlock();
      for (std::size_t i = next_++; i < order_->size(); i = next_++) task_(context_, (*order_)[i]);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const std::vector<std::int64_t>* order_ = nullptr;
  Parallel::Task task_ = nullptr;
  void* context_ = nullptr;
  std::atomic<std::size_t> next_ = 0;
  int wanted_ = 0, running_ = 0;
  std::uint64_t generation_ = 0;
  bool closing_ = false;
};

Schedule current{1, 0};

void run_tasks(std::int64_t count, Parallel::Task task, void* context) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  if (current.order != 0) {
    Random random(current.order);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
    }
  }
  if (current.threads == 1) {
    for (const std::int64_t index : order) task(context, index);
    return;
  }
  static Pool pool;
  pool.run(current.threads, order, task, context);
}

}  // namespace

Parallel parallel_for(Schedule schedule) {
  current = schedule;
  return {run_tasks, schedule.threads};
}

}  // namespace normwright::fuzz

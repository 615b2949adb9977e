/** Why generated code returned to the run loop. Values up to 5 are what handlers and helpers return (processor.ts, `after`). */
export const leave = {
  /** A fault, or an access that needs a step: state.leaveStatus tells. The instruction has not happened; leaveRecord names it. */
  abort: 1,
  /** The instruction of leaveRecord is complete; RIP is after it. */
  after: 3,
  /** The instruction of leaveRecord is complete; state.rip is where it went. */
  jumped: 4,
  /** The instruction of leaveRecord has progressed, but is to be run again. */
  again: 5,
  /** state.rip is to be translated and decoded. */
  lookup: 6,
  /** state.rip has not enough budget for its whole run. */
  budget: 7,
  /** Inside generated code only: go on at state.resumeRecord, a record of the same page. */
  near: 9,
  /** state.rip was reached so often that its region should be compiled. */
  hot: 10,
  /** The instruction of leaveRecord goes on in another page than when it was decoded. It has not happened. */
  crossing: 11,
  /** Inside generated code only, added to a value: a helper that a region called returned it, for the record state.resumeRecord. */
  byHelper: 0x100,
  /** A run of copied records has ended: RIP is that of leaveRecord. */
  stop: 8,
} as const

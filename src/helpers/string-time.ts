/** What repeated string instructions cost besides the one virtual nanosecond of every instruction: the same in every engine. */

export const bytesPerNanosecond = 16
/** The nanosecond of the instruction itself pays for this much. */
export const shortestTimed = 16

export const timeOfBytes = (bytes: number): number => (bytes > shortestTimed ? Math.ceil(bytes / bytesPerNanosecond) : 0)

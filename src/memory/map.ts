/** Where things lie in a machine's linear memory (the WebAssembly memory). Physical memory is only the last part of it. */

const KiB = 1024
const MiB = 1024 * KiB

/** Of the memory that linear memory lies in, as operating systems hand it out: 4 KiB at least. */
export const systemPage = 4 * KiB

/** Entries of the first-level TLB tables: 16 bytes each, { i64 page, i32 place, i32 unused }. Powers of two. */
export const tlbDataEntries = 16384
export const tlbFetchEntries = 2048
export const tlbEntrySize = 16

/** One set of tables is one translation context at one privilege: read, write, fetch. */
export const tlbSets = 64
export const tlbSetSize = (2 * tlbDataEntries + tlbFetchEntries) * tlbEntrySize

/** The first 16 KiB stay zero: the empty code table, and address 0 is never valid. CPU state lies from 32 KiB on (layout.ts). */
/** A few words for the page walk. */
export const walkScratch = 0x4000
/** What a helper reads or writes in one access that is not one piece of RAM. */
export const helperScratch = 0x4040
/** What is expected of jumps that remember nothing. */
export const noHint = 0x1_0000
/** By place of the stack: the record of the CALL that last pushed there, u32 each; noHint where none has. */
export const returnHints = 0x1_1000
export const returnHintCount = 1024
export const tlbBase = 1 * MiB
export const scratchRecords = 0x80000
/** One u64 a handler, when the interpreter profiles itself. */
export const profileCounters = 0x90000
/** Arrivals at records, counted by a hash of their address: u32 each. */
export const hotCounters = 0xa0000
export const hotCounterCount = 16384
/** A read or write table without entries: each access then takes the slow way, where it can be watched. */
export const emptyTlbTable = 0xb0000
/** From encodings of VMCS fields to their places in a region: src/cpu/vmcs-region.ts. */
export const vmcsFieldTable = 0xf0000
export const codeBase = 64 * MiB
export const codeSize = 160 * MiB
/** RAM and ROM are backed from here on, a chunk at a time. */
export const backingBase = codeBase + codeSize
/** RAM is backed in chunks of this size when first touched. */
export const chunkSize = 256 * KiB

if (tlbBase + tlbSets * tlbSetSize > codeBase) throw new Error('TLB sets overlap the code area')

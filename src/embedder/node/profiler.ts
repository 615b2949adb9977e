/** Samples this process by V8's own profiler, while a run lasts. Costs nothing when it is not started. */
import { Session } from 'node:inspector/promises'
import type { CpuProfile } from '../../insight/profile.ts'

const intervalMicroseconds = 500

/** Starts; the result stops, and gives what was seen. */
export async function startProfiler(): Promise<() => Promise<CpuProfile>> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: intervalMicroseconds })
  await session.post('Profiler.start')
  return async () => {
    const { profile } = await session.post('Profiler.stop')
    session.disconnect()
    return profile as CpuProfile
  }
}

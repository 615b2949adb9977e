/** A function's own reset, for who hands it to another owner ("Advanced Capabilities for Conventional PCI", "Function Level Reset"). */
import type { ConfigSpace } from './config-space.ts'

const advancedFeaturesId = 0x13
const offers = { pendingTransactions: 1, functionLevelReset: 2 } as const

/** Software that asks for it finds the configuration space as it was when software began, and `reset` has been called. */
export function addFunctionLevelReset(config: ConfigSpace, reset: () => void): void {
  const at = config.addCapability(advancedFeaturesId, 6)
  config.set(at + 2, 1, 6)
  config.set(at + 3, 1, offers.pendingTransactions | offers.functionLevelReset)
  config.allow(at + 4, 1, 1)
  config.onWrite(() => {
    if ((config.get(at + 4, 1) & 1) === 0) return
    config.reset()
    reset()
  })
}

/** What the hypervisor tells of a device that asked for what it may not have. */
import { isInterruptFault } from '../../iommu/fault-reasons.ts'
import type { Guest } from '../guest.ts'
import { sourceText } from './pci.ts'
import type { DeviceFault } from './remapping-driver.ts'

/** A request of a device that the remapping unit has blocked and recorded, and whose the device is. */
export interface DeviceFaultEvent extends DeviceFault {
  /** Whose the device is. */
  guest: Guest | undefined
  explanation: string
  /** The tables on the way, as they are now. */
  way: string[]
}

/** One line of a fault record of the remapping unit. `guest`: whose device it is. */
export function faultRecordWords({ source, reason, code, words, address, write }: DeviceFault, guest: Guest | undefined): string {
  const whose = guest ? `, which is ${guest.name}'s,` : ', which is nobody\'s,'
  const asked = isInterruptFault(reason) ? `interrupt ${Math.floor(address / 2 ** 48)}`
    : `a ${write ? 'write' : 'read'} at 0x${address.toString(16)}`
  return `${sourceText(source)}${whose} asked for ${asked}: ${words} (reason ${reason.toString(16)}h, ${code})`
}

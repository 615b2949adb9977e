/** What few PCs have, handed to those that need it (`needsParts` in pc.ts): nobody has to load it for the others. */
export { Ahci } from '../devices/ahci/ahci.ts'
export { openDrive } from '../devices/storage/drive.ts'
export { devicePlugs } from './device-plugs.ts'
export { Iommu, reservedMemory } from './iommu.ts'
export { Networks } from './networks.ts'

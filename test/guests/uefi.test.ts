/** Debian's OVMF (UEFI) in flash memory: it starts Debian's kernel by its EFI stub, and keeps variables. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MemoryStore } from '../../src/devices/testing/memory-store.ts'
import { createMachine } from '../../src/machine.ts'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { packageFolder } from '../../tools/debian/packages.ts'
import { kernelFile } from './linux.ts'

const ovmf = (name: string): Uint8Array => readFileSync(join(packageFolder('ovmf'), 'usr/share/OVMF', name))

const init = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "@@ EFI $(cat /sys/firmware/efi/fw_platform_size), from $(cat /sys/class/dmi/id/sys_vendor)"
echo "@@ tables" $(ls /sys/firmware/acpi/tables)
dmesg | grep -c 'efivars operations' | sed 's/^/@@ efivars /'
poweroff -f
`

/** With the firmware that keeps its variables in system management mode, a processor in SMM is the only one to write them. */
const builds = [
  { code: 'OVMF_CODE_4M.fd', cpus: 1, cpu: 'intel', secureFlash: false },
  { code: 'OVMF_CODE_4M.secboot.fd', cpus: 2, cpu: 'amd', secureFlash: true },
]

for (const { code, cpus, cpu, secureFlash } of builds) {
  test(`UEFI (${code}) starts a kernel, describes the machine to it, and keeps variables in its flash memory`, () => {
    const variables = new MemoryStore(ovmf('OVMF_VARS_4M.fd').slice())
    const machine = createMachine({
      engine: 'jit', chipset: 'q35', memory: 256 << 20, noReboot: true, cpus, secureFlash,
      cpu: { model: `${cpu},phys-bits=40` },
      flash: [
        { id: 'code', store: new MemoryStore(ovmf(code), { readOnly: true }), readOnly: true },
        { id: 'variables', store: variables },
      ],
      kernel: readFileSync(kernelFile('cloud')), initrd: initramfs({ init }), commandLine: 'console=ttyS0',
    })
    let text = ''
    machine.onSerialOutput = bytes => { text += String.fromCharCode(...bytes) }
    while (machine.run({ maxInstructions: 20_000_000 }).kind === 'budget' && machine.retired < 6e9) { /* until it powers off */ }
    assert.match(text, /EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path/, text.slice(-2000))
    assert.match(text, /@@ EFI 64, from Vitrine/)
    assert.match(text, /@@ tables APIC DSDT FACP FACS HPET MCFG/)
    assert.match(text, /@@ efivars 1/)
    const bootOrder = Buffer.from('BootOrder', 'utf16le')
    assert.ok(!Buffer.from(ovmf('OVMF_VARS_4M.fd')).includes(bootOrder))
    assert.ok(Buffer.from(variables.bytes).includes(bootOrder))
  })
}

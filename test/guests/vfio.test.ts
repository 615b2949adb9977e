/** Debian's QEMU with KVM, given an NVMe disk and an e1000 by VFIO inside Debian inside us: its guest's drivers use them. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { installedQemu } from '../../tools/debian/qemu.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-vfio-'))
after(() => rmSync(folder, { recursive: true }))

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const contents = Uint8Array.from({ length: 4 << 20 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)

const lease = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface; ip route add default via $router; echo "@@ leased $ip via $router"
`
const inner = (port: number): string => `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
ip link set eth0 up; udhcpc -n -q -i eth0 -s /etc/lease
nc 10.0.2.2 ${port} </dev/null >/received; echo "@@ received $(sha256sum </received)"
dd if=/received of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null
dd if=/dev/nvme0n1 bs=4k count=1024 iflag=direct 2>/dev/null | sha256sum | sed 's/^/@@ read /'
grep -E 'nvme|eth0' /proc/interrupts | sed 's/^/@@ inner /'
poweroff -f
`
const outer = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
given=
for name in 0000:00:02.0 0000:00:03.0; do
  device=/sys/bus/pci/devices/$name
  [ -e $device/driver ] && echo $name >$device/driver/unbind
  echo vfio-pci >$device/driver_override; echo $name >/sys/bus/pci/drivers_probe
  given="$given -device vfio-pci,host=$name"
done
qemu-system-x86_64 -L /usr/share/qemu -M q35 -accel kvm -cpu host -m 192 -nodefaults -display none -serial stdio -no-reboot \\
  -kernel /vmlinuz -initrd /inner -append 'console=ttyS0 quiet mitigations=off' $given </dev/null
echo "@@ QEMU ended $?"
grep -E 'PIN|PIW|vfio' /proc/interrupts | sed 's/^/@@ outer /'
dmesg | grep -iE 'DMAR.*(fault|error)|vfio.*(fail|error)|warning|bug:' | sed 's/^/@@ complaint /'
poweroff -f
`

test("QEMU's guest drives an NVMe disk and an e1000 that VFIO gave it", async () => {
  const server = createServer(socket => void socket.end(contents))
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  const [cloud, generic] = [debianKernel('cloud'), debianKernel('generic')]
  const inside = initramfs({ init: inner(port), modules: moduleFiles(generic, ['nvme', 'e1000']), files: { 'etc/lease': lease } })
  const initrd = join(folder, 'initrd')
  writeFileSync(initrd, initramfs({
    init: outer, modules: moduleFiles(cloud, ['kvm_intel', 'vfio_iommu_type1', 'vfio_pci']),
    entries: [...installedQemu(), { path: 'vmlinuz', kind: 'file', data: readFileSync(generic.image) },
      { path: 'inner', kind: 'file', data: gzipSync(inside, { level: 1 }) }],
  }))
  const image = join(folder, 'disk')
  writeFileSync(image, new Uint8Array(8 << 20))
  let text = ''
  const child = spawn(process.execPath, [
    fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url)), 'run', '--quiet', '--timeout', '500', '--memory', '1G', '--smp', '2',
    '--cpu', 'intel', '--kernel', cloud.image, '--initrd', initrd,
    '--append', 'console=ttyS0 quiet mitigations=off intel_iommu=on,sm_on iommu.strict=1', '--iommu', 'vtd',
    '--drive', `${image},if=nvme`, '--net', 'user,model=e1000',
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout.setEncoding('utf8').on('data', (piece: string) => { text += piece.replaceAll('\r', '') })
  const status = await new Promise(resolve => { child.on('close', resolve) })
  server.close()
  assert.equal(status, 0, text)
  assert.match(text, /@@ leased 10\.0\.2\.15 via 10\.0\.2\.2/)
  const sum = digest(contents)
  assert.ok(text.includes(`@@ received ${sum}`) && text.includes(`@@ read ${sum}`), text)
  assert.equal(digest(readFileSync(image).subarray(0, contents.length)), sum)
  // The card has a pin: VFIO masks it, and the guest's EOI has it unmasked. The disk's messages are posted.
  assert.match(text, /@@ inner +\d+: +\d{2,} +IO-APIC .*-fasteoi +eth0/)
  assert.match(text, /@@ inner +\d+: +\d{4,} +PCI-MSI .*nvme0q1/)
  assert.match(text, /@@ outer PIN: .*[1-9].* Posted/)
  assert.match(text, /@@ outer PIW: .*[1-9].* Posted/)
  assert.match(text, /@@ QEMU ended 0/)
  assert.doesNotMatch(text, /@@ complaint/)
})

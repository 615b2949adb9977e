/** `--net` and QEMU's `-netdev` and `-nic`: networks, forwarded ports, and the cards that are plugged into them. */
import type { NetworkOptions } from '../api.ts'
import { nearest } from '../cpu/features.ts'
import { InputError } from '../errors.ts'
import type { LinkPlace, PortForward } from './system.ts'
import type { DeviceSelection } from './values.ts'

/** Keys of both kinds of card, and of each kind of network. */
const ofCards = ['id', 'mac', 'model']
const kinds: Readonly<Record<string, readonly string[]>> = { user: ['hostfwd', 'restrict'], socket: ['listen', 'connect'] }
/** What QEMU lets one choose of user networks, as far as it is settled here. */
const settled: Readonly<Record<string, readonly string[]>> = {
  net: ['10.0.2.0/24', '10.0.2.0/255.255.255.0', '10.0.2.0'], host: ['10.0.2.2'], dns: ['10.0.2.3'], dhcpstart: ['10.0.2.15'],
  ipv4: ['on', 'yes', 'y'], ipv6: ['off', 'no', 'n'],
}
/** The devices that QEMU's names for them mean. */
export const cardModels: Readonly<Record<string, string>> = {
  virtio: 'virtio-net-pci', 'virtio-net': 'virtio-net-pci', 'virtio-net-pci': 'virtio-net-pci', e1000: 'e1000', 'e1000-82540em': 'e1000',
}
const usualModel = 'virtio-net-pci'

export const networkHelp = `\
user[,key=value...]     a router with DHCP and DNS, whose connections are made from our own sockets:
  hostfwd=tcp:[ADDRESS]:PORT-[ADDRESS]:PORT    connections to our port go to the guest's (again for more)
  restrict=on|off                              nothing leads out (default: off)
socket,listen=[HOST]:PORT or socket,connect=[HOST]:PORT    a switch for other machines, or a way to one; QEMU's among them
none                    no network
Of both kinds:
  model=virtio|e1000    the card (default: virtio)
  mac=ADDRESS           such as 52:54:00:12:34:56
  id=NAME               its name (default: nic0, nic1, ...)
`

export interface Networks {
  networks: NetworkOptions[]
  forwards: Record<string, PortForward[]>
  links: Record<string, LinkPlace>
  devices: DeviceSelection[]
}

interface Parsed {
  network: NetworkOptions
  forwards: PortForward[]
  link: LinkPlace | undefined
  device: DeviceSelection
}

/**
 * `user[,hostfwd=tcp:[HOST]:PORT-[HOST]:PORT][,restrict=on]` or `socket,listen|connect=[HOST]:PORT`, either with `[,mac=..][,model=..]`: a
 * network and, with `cards`, its card; or `none`.
 */
export function parseNetworks(texts: readonly string[], { cards, needsId = false }: { cards: boolean; needsId?: boolean }): Networks {
  const parsed = texts.filter(text => text !== 'none').map((text, index) => parseNetwork(text, needsId ? undefined : `nic${index}`))
  return {
    networks: parsed.map(({ network }) => network),
    forwards: Object.fromEntries(parsed.map(({ network, forwards }) => [network.id, forwards])),
    links: Object.fromEntries(parsed.flatMap(({ network, link }) => (link ? [[network.id, link]] : []))),
    devices: cards ? parsed.map(({ device }) => device) : [],
  }
}

function parseNetwork(text: string, defaultId: string | undefined): Parsed {
  const [kind, ...parts] = text.split(',')
  const own = kinds[kind]
  if (own === undefined) throw new InputError(`network '${text}': expected user, socket or none, found '${kind}'`)
  const known = [...ofCards, ...own, ...(kind === 'user' ? Object.keys(settled) : [])]
  const values = parts.filter(part => part !== '').map(part => {
    const equals = part.indexOf('=')
    const key = equals < 0 ? part : part.slice(0, equals)
    if (!known.includes(key)) throw new InputError(`network '${text}': there is no key '${key}'; the nearest is '${nearest(key, known)}'`)
    return [key, equals < 0 ? 'on' : part.slice(equals + 1)] as const
  })
  const keys = Object.fromEntries(values)
  const model = cardModels[keys.model ?? usualModel]
  if (model === undefined) throw new InputError(`network '${text}': model: expected virtio-net-pci or e1000, found '${keys.model}'`)
  if (keys.restrict !== undefined && !['on', 'off', 'yes', 'no', 'y', 'n'].includes(keys.restrict)) {
    throw new InputError(`network '${text}': restrict: expected on or off, found '${keys.restrict}'`)
  }
  for (const key of Object.keys(keys).filter(each => each in settled)) {
    const [usual, ...others] = settled[key]
    if (keys[key] !== usual && !others.includes(keys[key])) {
      throw new InputError(`network '${text}': ${key}: expected ${usual}, found '${keys[key]}'`)
    }
  }
  const id = keys.id ?? defaultId
  if (id === undefined) throw new InputError(`network '${text}': expected id=ID, for a device to name`)
  return {
    network: kind === 'user' ? { id, kind, restrict: /^(on|y)/.test(keys.restrict ?? '') } : { id, kind: 'link' },
    link: kind === 'user' ? undefined : placeOf(text, keys),
    forwards: values.filter(([key]) => key === 'hostfwd').map(([, value]) => parseForward(value)),
    device: { name: model, properties: { netdev: id, ...(keys.mac === undefined ? {} : { mac: keys.mac }) } },
  }
}

function placeOf(text: string, { listen, connect }: Record<string, string>): LinkPlace {
  if ((listen === undefined) === (connect === undefined)) throw new InputError(`network '${text}': expected listen= or connect=`)
  const [, host, port] = /^([^:]*):(\d+)$/.exec(listen ?? connect) ?? []
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw new InputError(`network '${text}': expected [HOST]:PORT, found '${listen ?? connect}'`)
  }
  const place = { host, port: Number(port) }
  return listen === undefined ? { connect: place } : { listen: place }
}

/** `tcp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`, as QEMU writes it. */
function parseForward(text: string): PortForward {
  const found = /^(tcp|udp)?:([^:]*):(\d+)-([^:]*):(\d+)$/.exec(text)
  if (!found) throw new InputError(`hostfwd '${text}': expected tcp:[ADDRESS]:PORT-[ADDRESS]:PORT`)
  const [, protocol, host, port, toHost, toPort] = found
  if (protocol === 'udp') throw new InputError(`hostfwd '${text}': only TCP ports are forwarded`)
  const isPort = (each: string): boolean => Number(each) >= 1 && Number(each) <= 65_535
  if (!isPort(port) || !isPort(toPort)) throw new InputError(`hostfwd '${text}': expected ports from 1 to 65535`)
  return {
    port: Number(port), toPort: Number(toPort), ...(host === '' ? {} : { host }), ...(toHost === '' ? {} : { toHost }),
  }
}

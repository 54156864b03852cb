import { PlacementError } from '@q/config';
import { type Device, type DeviceMap, type DeviceMapInput, type Message, mapPairs } from './types.js';

const own = (map: DeviceMap, key: string): Device | undefined => (Object.hasOwn(map, key) ? map[key] : undefined);

const record = (map: DeviceMapInput): DeviceMap => Object.fromEntries(mapPairs(map));

const climb = (map: DeviceMap, name: string): Device | undefined => {
  for (let path = name; ; path = path.slice(0, Math.max(0, path.lastIndexOf('.')))) {
    const device = own(map, path);
    if (device !== undefined || path === '') return device;
  }
};

/**
 * The device of a parameter, buffer or module: its own key or the nearest above it; undefined when the map does not
 * cover it. Source: accelerate `_get_param_device`.
 */
export const findDevice = (map: DeviceMapInput, name: string): Device | undefined => deviceFinder(map)(name);

/** {@link findDevice} for many names: the map is read once. */
export const deviceFinder = (map: DeviceMapInput): ((name: string) => Device | undefined) => {
  const devices = record(map);
  return (name) => climb(devices, name);
};

/**
 * The device of each name, as transformers expands a map: the key with the most components, then the longest, that the
 * name begins with, dot or not (`h.1` also matches `h.10.w` when the map has no `h.10`); otherwise the key `''`,
 * otherwise `cpu`. Use `findDevice` unless this exact behaviour is wanted. Source: transformers 5 `expand_device_map`.
 */
export const expandDeviceMap = (map: DeviceMapInput, names: readonly string[]): DeviceMap => {
  const devices = record(map);
  const depth = (key: string): number => key.split('.').length;
  const keys = Object.keys(devices).sort((a, b) => depth(b) - depth(a) || b.length - a.length);
  return Object.fromEntries(
    names.map((name) => [name, devices[keys.find((key) => name.startsWith(key)) ?? ''] ?? 'cpu']),
  );
};

/**
 * Where a tensor is read to while loading: as `expandDeviceMap`, but `cpu` for `disk`. Source: transformers 5
 * `get_device`.
 */
export const loadDevice = (map: DeviceMapInput, name: string): Device => {
  const device = expandDeviceMap(map, [name])[name]!;
  return device === 'disk' ? 'cpu' : device;
};

/**
 * A message for every group of tied parameters that lies on several devices.
 * Source: accelerate `check_tied_parameters_on_same_device`.
 * @throws PlacementError (`fields.rule` `not_in_map`) when the map covers one of the names by no key
 */
export const checkTiedParametersOnSameDevice = (
  tied: readonly (readonly string[])[],
  map: DeviceMapInput,
): Message[] => {
  const devices = record(map);
  return tied.flatMap((group): Message[] => {
    const places = group.map((name): [string, Device] => {
      const device = climb(devices, name);
      if (device === undefined) {
        throw new PlacementError('checkTiedParametersOnSameDevice', 'the device map does not cover a tied parameter', {
          rule: 'not_in_map',
          name,
          fix: 'add the parameter or a module above it to the map',
        });
      }
      return [name, device];
    });
    if (new Set(places.map(([, device]) => device)).size < 2) return [];
    return [{ level: 'warning', code: 'tied_on_different_devices', devices: Object.fromEntries(places) }];
  });
};

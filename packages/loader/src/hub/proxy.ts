// Proxies as Python's huggingface_hub and curl take them from the environment. Node's own fetch looks at none of it.
import { BlockList, isIP } from 'node:net';
import type { Agent, ProxyAgent } from 'undici';
import { UnsupportedError } from '@q/config';
import type { ProxySettings } from './env.js';

/** The proxy for an address; undefined when it is asked directly. @throws UnsupportedError for other kinds of proxy. */
export function proxyFor(url: URL, proxies: ProxySettings): URL | undefined {
  const text = url.protocol === 'https:' ? proxies.https : proxies.http;
  if (text === undefined || isExcepted(url, proxies.except)) return undefined;
  const whole = text.includes('://') ? text : `http://${text}`;
  const proxy = URL.canParse(whole) ? new URL(whole) : undefined;
  if (proxy && /^https?:$/.test(proxy.protocol)) return proxy;
  throw new UnsupportedError('hub', 'this kind of proxy cannot be used', {
    proxy: proxy ? `${proxy.protocol}//${proxy.host}` : 'no address',
    fix: 'set HTTPS_PROXY to an http: or https: address, add the host of the hub to NO_PROXY, or give the option fetch',
  });
}

/** NO_PROXY: `*`, host names with all their subdomains, addresses, networks (`10.0.0.0/8`), each with a port or not. */
function isExcepted(url: URL, except: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return except
    .toLowerCase()
    .split(/[,\s]+/)
    .some((entry) => {
      if (entry === '*') return true;
      const [, name = entry, wantedPort] = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(entry) ?? [];
      if (wantedPort !== undefined && wantedPort !== port) return false;
      const bare = name.replace(/^\*?\./, '').replace(/^\[|\]$/g, '');
      if (bare === '') return false;
      return host === bare || (isIP(host) ? isInNetwork(host, bare) : host.endsWith(`.${bare}`));
    });
}

function isInNetwork(host: string, network: string): boolean {
  const [address, bits] = network.split('/');
  const family = isIP(address);
  if (!family || !/^\d{1,3}$/.test(bits ?? '') || Number(bits) > (family === 4 ? 32 : 128)) return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(address, Number(bits), type);
  return isIP(host) === family && list.check(host, type);
}

/**
 * A `fetch` that goes through the proxies of the environment, and its end. Always undici's own: Node's is of another
 * version, with which an agent may not work, and that of Node.js 20.20 ends the process when an answer with more than
 * five content encodings breaks off.
 */
export function environmentFetch(proxies: ProxySettings): { fetch: typeof fetch; close: () => Promise<void> } {
  const agents = new Map<string, Agent | ProxyAgent>();
  const send = async (input: Parameters<typeof fetch>[0], init?: RequestInit): Promise<Response> => {
    const url = input instanceof Request ? input.url : String(input);
    const proxy = proxyFor(new URL(url), proxies)?.href;
    const undici = await import('undici');
    const key = proxy ?? 'direct';
    let agent = agents.get(key);
    if (!agent) {
      agent = proxy ? new undici.ProxyAgent({ uri: proxy, proxyTunnel: false }) : new undici.Agent();
      agents.set(key, agent);
    }
    const options = { ...init, dispatcher: agent } as Parameters<typeof undici.fetch>[1];
    return (await undici.fetch(url, options)) as unknown as Response;
  };
  const close = async () => {
    await Promise.all([...agents.values()].map((agent) => agent.destroy()));
  };
  return { fetch: send as typeof fetch, close };
}

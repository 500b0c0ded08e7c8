# The bridge (`radius-bridge serve`). Agents run on the hosts that they protect, not in containers.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/bridge.txt requirements/
RUN python -m venv /opt/radius-bridge \
 && /opt/radius-bridge/bin/pip install --no-cache-dir --require-hashes -r requirements/bridge.txt
COPY . .
RUN python -m venv /tmp/build \
 && /tmp/build/bin/pip install --no-cache-dir --require-hashes -r requirements/dev.txt \
 && /tmp/build/bin/pip wheel --no-deps --no-build-isolation -w /tmp/wheel . \
 && /opt/radius-bridge/bin/pip install --no-cache-dir --no-deps /tmp/wheel/*.whl

FROM python:3.11-slim-bookworm
COPY --from=build /opt/radius-bridge /opt/radius-bridge
USER 65534:65534
EXPOSE 1813/udp
ENTRYPOINT ["/opt/radius-bridge/bin/radius-bridge"]
CMD ["serve", "-c", "/etc/radius-bridge/radius-bridge.toml"]

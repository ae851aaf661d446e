"""RViz's configuration: its topics are the node's, and its window shows people, not docks.

The window is checked in one of Qt that is built as RViz 2 does it (visualization_frame.cpp).
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "config" / "pose.rviz").read_text())
WINDOW = CONFIG["Window Geometry"]
DISPLAYS = {display["Name"]: display for display in CONFIG["Visualization Manager"]["Displays"]}
PANELS = [panel["Name"] for panel in CONFIG["Panels"]]


def _of(kind: str) -> list[dict]:
    return [display for display in DISPLAYS.values() if display["Class"].endswith(f"/{kind}")]


def _topics() -> set[str]:
    return {display["Topic"]["Value"] for display in DISPLAYS.values() if "Topic" in display}


def test_overlay_skeletons_bodies_and_joint_frames_are_shown():
    for kind in ("Image", "MarkerArray", "TF", "Grid"):
        assert len(_of(kind)) == 1 and _of(kind)[0]["Enabled"] and _of(kind)[0]["Value"]
    assert _topics() == {"/ros2_pose/overlay", "/ros2_pose/markers"}
    assert _of("MarkerArray")[0]["Namespaces"] == {}  # all of them
    assert _of("TF")[0]["Marker Scale"] == 1 and _of("TF")[0]["Frames"]["All Enabled"]


def test_topics_that_move_are_those_of_the_configuration():
    """pose.launch.py moves RViz's topics to a namespace or a camera by these names."""
    source = (ROOT / "launch" / "pose.launch.py").read_text()
    moved = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
             and isinstance(node.value, str) and re.fullmatch(r"/ros2_pose/\w+", node.value)}
    assert moved == _topics()


def test_panels_are_few_and_the_window_has_a_size_of_its_own():
    assert PANELS == ["Displays"]
    assert (WINDOW["Width"], WINDOW["Height"]) == (1200, 800)
    for name in (*PANELS, "Overlay"):
        assert WINDOW[name] == {"collapsed": False}
    assert WINDOW["Hide Left Dock"] is False and WINDOW["Hide Right Dock"] is True


# In Qt -------------------------------------------------------------------------------------------


def _qt():
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    for name in ("PySide6", "PyQt5", "PySide2", "PyQt6"):
        try:
            widgets = __import__(f"{name}.QtWidgets", fromlist=["QtWidgets"])
            return widgets, __import__(f"{name}.QtCore", fromlist=["QtCore"])
        except ImportError:
            continue
    pytest.skip("needs Qt for Python, such as PySide6-Essentials or python3-pyqt5")


@pytest.fixture
def window():
    """(main window, docks by name), as RViz builds it, its state not restored yet."""
    widgets, core = _qt()
    app = widgets.QApplication.instance() or widgets.QApplication([])

    class Wide(widgets.QWidget):
        """A view that would like to be so large."""

        def __init__(self, width: int, height: int):
            super().__init__()
            self.wanted = core.QSize(width, height)

        def sizeHint(self):
            return self.wanted

    main = widgets.QMainWindow()
    main.menuBar().addMenu("File")
    main.statusBar()
    tools = main.addToolBar("Tools")
    tools.setObjectName("Tools")
    tools.addAction("Interact")
    central = widgets.QWidget(main)
    layout = widgets.QHBoxLayout(central)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for part in (16, None, 16):  # the buttons that hide the docks, beside the view
        if part:
            button = widgets.QToolButton()
            button.setFixedWidth(part)
        else:
            button = main.view = Wide(320, 240)
        layout.addWidget(button, 0 if part else 1)
    main.setCentralWidget(central)
    docks = {}
    for name, size in (("Overlay", (640, 480)), ("Displays", (960, 500))):  # images come first
        docks[name] = widgets.QDockWidget(name)
        docks[name].setObjectName(name)
        docks[name].setWidget(Wide(*size))
        main.addDockWidget(core.Qt.DockWidgetArea.LeftDockWidgetArea, docks[name])
    main.resize(WINDOW["Width"], WINDOW["Height"])
    yield app, main, docks, core
    main.close()


def test_the_3d_view_has_most_of_the_window_and_the_overlay_500_pixels(window):
    app, main, docks, core = window
    assert main.restoreState(core.QByteArray.fromHex(WINDOW["QMainWindow State"].encode()))
    main.show()
    app.processEvents()
    assert (main.width(), main.height()) == (1200, 800)
    view, overlay, displays = (part.size() for part in
                               (main.view, docks["Overlay"].widget(), docks["Displays"].widget()))
    assert overlay.width() >= 500 and overlay.height() >= 375  # all of a 4:3 image
    assert view.width() >= 550 and view.width() > overlay.width() and view.height() >= 600
    assert displays.height() >= 200
    assert docks["Overlay"].y() < docks["Displays"].y()
